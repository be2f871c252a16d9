"""Puts the service together: `create_app(settings)` is the ASGI application."""

from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app import problems
from app.api import explain, health, metadata, open_inference, page, predict
from app.lifecycle import Lifespan, Service
from app.observability import Observe
from app.predictor import Predictor, load_predictor
from app.settings import Settings

DESCRIPTION = """\
Reads handwritten digits with a Perceiver.

Errors are `application/problem+json` (RFC 9457). Each answer carries `X-Request-ID`, yours if you
sent one (1 to 128 visible ASCII characters), and `Server-Timing` in milliseconds.
"""


def create_app(
    settings: Settings | None = None, load: Callable[[Settings], Predictor] = load_predictor
) -> FastAPI:
    """The application; its lifespan loads the model, and warms it up, before it accepts requests.

    Args:
        settings: by default from the environment.
        load: makes the predictor, ready to answer.
    """
    service = Service(settings or Settings(), load)
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
    app.add_middleware(Observe)
    app.add_middleware(Lifespan, service=service)
    for router in (
        predict.router,
        explain.router,
        health.router,
        metadata.router,
        open_inference.router,
        page.router,
    ):
        app.include_router(router)

    return app
