"""Puts the service together: `create_app(settings)` is the ASGI application."""

import asyncio
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from app.api import admin, explain, health, metrics, open_inference, page, predict, read
from app.api import models as metadata
from app.gate.gate import Gate
from app.gate.keys import Keys, is_open
from app.gate.reload import UNUSABLE, Reload
from app.gate.service import Service
from app.inference.models import Model, Models
from app.inference.predictor import Predictor, load_predictor
from app.settings import Settings
from app.telemetry.metrics import Metrics
from app.wire import problems
from app.wire.openapi import require_keys

if TYPE_CHECKING:
    from app.telemetry.spans import Spans

DESCRIPTION = """\
Reads handwritten digits with a Perceiver.

Errors are `application/problem+json` (RFC 9457). Each answer carries `X-Request-ID`, yours if you
sent one (1 to 128 visible ASCII characters), and `Server-Timing` in milliseconds.
"""
# Calls whose handlers the gate calls itself: by the routes a small request takes half as much CPU
# time again.
SHORT_CUTS = {
    ("POST", "/predict"): predict.predict,
    ("POST", "/predict/batch"): predict.predict_batch,
}


def create_app(
    settings: Settings | None = None,
    load: Callable[[Settings], Predictor] = load_predictor,
) -> "Application":
    """The application of a service of its own.

    Args:
        settings: by default from the environment.
        load: makes the predictor, ready to answer.
    """
    settings = settings or Settings()
    return Application(create_service(settings, load), partial(load, settings))


def create_service(
    settings: Settings,
    load: Callable[[Settings], Predictor],
    metrics_folder: Path | None = None,
) -> Service:
    """A service that has no model yet.

    Args:
        settings: of the service.
        load: makes the predictor of a reload, ready to answer.
        metrics_folder: where the workers of one service share what they count; None: it is one.
    """
    counts = Metrics(metrics_folder)

    def introduce(model: Model) -> None:
        card, engine = model.card, model.predictor.engine
        model.predictor.observe(counts)
        counts.model(card.name, card.version, engine.name, engine.device)
        counts.expect(card.labels, problems.KINDS)

    # As long as a request that has begun may take.
    models = Models(introduce, settings.body_timeout_s + settings.request_timeout_s + 1)
    service = Service(settings, models, Keys.read(settings), counts)
    service.reload = Reload(service, load)
    return service


class Application:
    """ASGI: a service from its start to its end, which its lifespan tells.

    Args:
        service: that has yet to start.
        load: makes its first predictor, ready to answer.
    """

    def __init__(self, service: Service, load: Callable[[], Predictor]) -> None:
        self.service = service
        self._load = load
        self._spans = _spans(service.settings)
        # What records spans by itself would go around the gate.
        self._gate = Gate(
            routes(service), service, SHORT_CUTS, cors=_cors(service.settings), spans=self._spans
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._gate(scope, receive, send)
            return
        await receive()
        try:
            await self.start()
        except UNUSABLE as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Loads the first model.

        Raises:
            CheckpointError, EngineError: see `app.inference.predictor.load_predictor`.
        """
        predictor = await asyncio.to_thread(self._load)
        self.service.models.put_in_place(Model(predictor))

    async def stop(self) -> None:
        """Waits for the images taken to be answered."""
        self.service.draining = True
        await self.service.models.close()
        if self._spans:
            await asyncio.to_thread(self._spans.close)


def routes(service: Service) -> FastAPI:
    """All that a service answers."""
    # Swagger UI from the package, not from a CDN.
    app = FastAPIOffline(
        title="Perceiver Serve",
        version=version("perceiver-serve"),
        description=DESCRIPTION,
        redoc_url=None,
        static_url="/docs/assets",
        redirect_slashes=False,
        # An error that is none of these is our fault: the gate logs it.
        exception_handlers=dict.fromkeys((*problems.HANDLED, Exception), problems.handle),
    )
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
        _tell_of_keys(app)
    return app


def _tell_of_keys(app: FastAPI) -> None:
    """Has the OpenAPI document say that calls need a key."""
    document = app.openapi

    def with_keys() -> dict[str, Any]:
        if not app.openapi_schema:
            require_keys(document(), is_open)  # what is made once, and kept
        return document()

    app.openapi = with_keys  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _cors(settings: Settings) -> Callable[[Any], CORSMiddleware] | None:
    if not settings.cors_origins:
        return None
    return partial(
        CORSMiddleware,
        allow_origins=[origin.strip() for origin in settings.cors_origins.split(",")],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["X-Request-ID", "Server-Timing", "Retry-After"],
    )


def _spans(settings: Settings) -> "Spans | None":
    if not settings.otlp_endpoint:
        return None
    from app.telemetry.spans import Spans

    return Spans(settings.otlp_endpoint)
