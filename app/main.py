"""Puts the service together: `create_app(settings)` is the ASGI application."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from app import problems
from app.api import admin, explain, health, metadata, metrics, open_inference, page, predict, read
from app.api.documentation import require_keys
from app.guard import Guard, is_open
from app.lifecycle import Lifespan, Service
from app.metrics import Metrics
from app.observability import Observe
from app.predictor import Predictor, load_predictor
from app.settings import Settings

DESCRIPTION = """\
Reads handwritten digits with a Perceiver.

Errors are `application/problem+json` (RFC 9457). Each answer carries `X-Request-ID`, yours if you
sent one (1 to 128 visible ASCII characters), and `Server-Timing` in milliseconds.
"""


def create_app(
    settings: Settings | None = None,
    load: Callable[[Settings], Predictor] = load_predictor,
    metrics_folder: Path | None = None,
) -> FastAPI:
    """The application; its lifespan loads the model, and warms it up, before it accepts requests.

    Args:
        settings: by default from the environment.
        load: makes the predictor, ready to answer.
        metrics_folder: where the workers of one service share what they count; None: it is one.
    """
    settings = settings or Settings()
    spans = None
    if settings.otlp_endpoint:
        from app.spans import Spans  # of an optional extra

        spans = Spans(settings.otlp_endpoint)
    service = Service(settings, load, Metrics(metrics_folder), spans)
    # Swagger UI from the package, not from a CDN.
    app = FastAPIOffline(
        title="Perceiver Serve",
        version=version("perceiver-serve"),
        description=DESCRIPTION,
        redoc_url=None,
        static_url="/docs/assets",
        redirect_slashes=False,
        exception_handlers=dict.fromkeys(problems.HANDLED, problems.handle),
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
    app.add_middleware(Observe, metrics=service.metrics, spans=spans)
    app.add_middleware(Lifespan, service=service)
    for router in (
        admin.router,
        predict.router,
        explain.router,
        read.router,
        health.router,
        metadata.router,
        metrics.router,
        open_inference.router,
        page.router,
    ):
        app.include_router(router)
    if service.keys:
        require_keys(app.openapi(), is_open)  # the document is made once

    return app
