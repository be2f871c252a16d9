"""Puts the service together: `create_app(settings)` is the ASGI application."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

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
from app.gate.gate import Gate
from app.gate.keys import Keys, is_open
from app.gate.reload import UNUSABLE, Reload
from app.gate.service import Service
from app.inference.budgets import Budgets
from app.inference.decoders import Decoders
from app.inference.models import Model, Models
from app.inference.predictor import Predictor, load_predictor
from app.settings import Settings
from app.telemetry.metrics import Metrics
from app.wire import openapi, problems, refusals

if TYPE_CHECKING:
    from app.telemetry.spans import Spans

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Classifies what it is sent with a Perceiver.

Errors are `application/problem+json` (RFC 9457). Each answer carries `X-Request-ID`, yours if you
sent one (1 to 128 visible ASCII characters), and `Server-Timing` in milliseconds.
"""
# A computation that takes longer is not waited for when the service ends.
CLOSING_S = 0.2
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
    return Application(create_service(settings), partial(load, settings))


def create_service(
    settings: Settings, keys: Keys | None = None, metrics_folder: Path | None = None
) -> Service:
    """A service that has no model yet.

    Args:
        settings: of the service.
        keys: that are good now; by default those that the settings name.
        metrics_folder: where the workers of one service share what they count; None: it is one.

    Raises:
        KeysError: the keys that the settings name can't be had.
    """
    counts = Metrics(metrics_folder)
    budgets = Budgets(settings)
    counts.follow(budgets)
    decoders = Decoders(settings, budgets.pending_pixels)
    decoders.on_end = counts.decoder_ended

    def introduce(model: Model) -> None:
        card, engine = model.card, model.predictor.engine
        model.predictor.observe(counts)
        model.predictor.decoders = decoders
        counts.model(card.name, card.version, engine.name, engine.device)
        counts.expect(card.labels, problems.KINDS)

    # As long as a request that has begun may take.
    models = Models(introduce, settings.body_timeout_s + settings.request_timeout_s + 1)
    service = Service(
        settings,
        budgets,
        decoders,
        models,
        Keys.read(settings) if keys is None else keys,
        counts,
    )
    service.reload = Reload(service)
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
        cors = _cors(service.settings)
        gate = Gate(routes(service), service, SHORT_CUTS, cors=cors, spans=self._spans)
        self._answer: ASGIApp = self._spans.wrap(gate) if self._spans else gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._answer(scope, receive, send)
            return
        await receive()
        try:
            await self.start()
        except UNUSABLE as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        # The first answers need not wait for this.
        threading.Thread(target=self._prove_rest, name="prover", daemon=True).start()
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

    def _prove_rest(self) -> None:
        for fault in self.service.model.prove_rest():
            logger.error("%s", fault)

    async def stop(self) -> None:
        """Ends what answers; whoever was to be answered has been."""
        self.service.draining = True
        self.service.decoders.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
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
        exception_handlers=dict.fromkeys((*refusals.HANDLED, Exception), refusals.handle),
    )
    calls = (admin, predict, explain, read, health, models, problem_pages, open_inference)
    routers = [app.router, *(module.router for module in calls)]
    gets = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    for module in calls:
        app.include_router(module.router)
    for route in gets:
        if "GET" in (route.methods or ()):  # HEAD is as GET: the server leaves the content out
            app.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)
    app.router.routes += page.ROUTES
    openapi.describe(app, needs_key=lambda path: bool(service.keys) and not is_open(path))
    return app


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
