"""Puts the service together: `create_app(settings)` is the ASGI application."""

from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from app.api import (
    admin,
    explain,
    health,
    models,
    open_inference,
    page,
    predict,
    problem_pages,
    read,
)
from app.gate.gate import Guard, is_open
from app.gate.service import Lifespan, Service, create_service
from app.inference.predictor import Predictor, load_predictor
from app.settings import Settings
from app.telemetry.requests import Observe
from app.wire import openapi, refusals

DESCRIPTION = """\
Reads handwritten digits with a Perceiver.

Errors are `application/problem+json` (RFC 9457). Each answer carries `X-Request-ID`, yours if you
sent one (1 to 128 visible ASCII characters), and `Server-Timing` in milliseconds.
"""


def create_app(
    settings: Settings | None = None,
    load: Callable[[Settings], Predictor] = load_predictor,
) -> FastAPI:
    """The application of a service of its own.

    Its lifespan loads the model, and warms it up, before it accepts requests.

    Args:
        settings: by default from the environment.
        load: makes the predictor, ready to answer.
    """
    return application(create_service(settings or Settings(), load))


def application(service: Service) -> FastAPI:
    """All that a service answers."""
    # Swagger UI from the package, not from a CDN.
    app = FastAPIOffline(
        title="Perceiver Serve",
        version=version("perceiver-serve"),
        description=DESCRIPTION,
        redoc_url=None,
        static_url="/docs/assets",
        redirect_slashes=False,
        exception_handlers=dict.fromkeys(refusals.HANDLED, refusals.handle),
    )
    app.state.service = service
    app.add_middleware(Guard, service=service)
    if service.settings.cors_origins:  # before the guard: a preflight carries no key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in service.settings.cors_origins.split(",")],
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Server-Timing", "Retry-After"],
        )
    app.add_middleware(Observe, metrics=service.metrics, spans=service.spans)
    app.add_middleware(Lifespan, service=service)
    for router in (
        admin.router,
        predict.router,
        explain.router,
        read.router,
        health.router,
        models.router,
        problem_pages.router,
        open_inference.router,
    ):
        app.include_router(router)
    app.router.routes += page.ROUTES
    openapi.describe(app, needs_key=lambda path: bool(service.keys) and not is_open(path))
    return app
