"""Start, readiness, the change of the model under load, and an end that loses no request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from app.gate.keys import Keys, KeysError
from app.inference.engines import EngineError
from app.inference.explainer import Explainer
from app.inference.predictor import Predictor
from app.settings import Settings
from app.telemetry.metrics import Metrics
from app.wire.problems import KINDS, NOT_READY, RELOAD_FAILED, RequestError
from model.checkpoint.folder import CheckpointError

if TYPE_CHECKING:
    from app.telemetry.spans import Spans

# What can be wrong with a checkpoint, an engine or the keys; each message is one sentence.
UNUSABLE = (CheckpointError, EngineError, KeysError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """What a reload would put in place, proved to work."""

    predictor: Predictor
    keys: Keys


class Service:
    """What the API answers with: settings, keys, and the predictor between start and stop.

    Attributes:
        draining: whether it will stop soon, and wants no more work.
        reload: puts what the checkpoint folder holds now in the place of what serves; raises
            `RequestError` where that can't be used, and goes on with what there was.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[Settings], Predictor],
        metrics: Metrics,
        spans: "Spans | None" = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.spans = spans
        self.keys = Keys.read(settings)
        self.draining = False
        self.reload: Callable[[], Awaitable[None]] = self._reload
        self._load = load
        self._predictor: Predictor | None = None
        self._explainer: Explainer | None = None
        self._replaced: set[Predictor | Explainer] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()

    @classmethod
    def of(cls, connection: HTTPConnection) -> "Service":
        """The service that a request came to."""
        service: Service = connection.app.state.service
        return service

    @property
    def predictor(self) -> Predictor:
        """The predictor. Who took it before a reload may go on with it for one request.

        Raises:
            RequestError: the service has not started or has stopped.
        """
        if self._predictor is None:
            raise RequestError(NOT_READY, "the model is not loaded")
        return self._predictor

    @property
    def explainer(self) -> Explainer:
        """The explainer of the predictor's answers.

        Raises:
            RequestError: the service has not started or has stopped.
        """
        if self._explainer is None:
            self._explainer = Explainer(self.predictor)
        return self._explainer

    @property
    def started(self) -> bool:
        """Whether there is a predictor."""
        return self._predictor is not None

    def is_full(self) -> bool:
        """Whether another image would be refused, for there are too many."""
        return self._predictor is not None and self._predictor.is_full()

    def deadline(self) -> float:
        """Until when a request whose body is read by now must be answered, on the loop's clock."""
        return asyncio.get_running_loop().time() + self.settings.request_timeout_s

    async def start(self) -> None:
        """Loads and warms up the predictor.

        Raises:
            CheckpointError, EngineError: see `app.inference.predictor.load_predictor`.
        """
        self._predictor = await asyncio.to_thread(self._load, self.settings)
        self._observe(self._predictor)

    def prepare(self, load: Callable[[Settings], Predictor]) -> Candidate:
        """Loads and proves what is to serve next; takes seconds, so not for the event loop.

        Raises:
            CheckpointError, EngineError, KeysError: it can't be used.
        """
        return Candidate(load(self.settings), Keys.read(self.settings))

    def put_in_place(self, candidate: Candidate) -> None:
        """From now on the candidate answers; requests under way end with the one before."""
        for before in (self._explainer, self._predictor):
            if before is not None:
                self._replaced.add(before)
                task = asyncio.get_running_loop().create_task(self._retire(before))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._predictor, self._explainer = candidate.predictor, None
        self._observe(candidate.predictor)
        self.keys = candidate.keys
        card = candidate.predictor.card
        logger.info("serving %s %s", card.name, card.version)

    async def stop(self) -> None:
        """Waits for the images taken to be answered."""
        self.draining = True
        for task in self._closing:
            task.cancel()
        for part in (*self._replaced, self._explainer, self._predictor):
            if part is not None:
                await part.close()
        if self.spans:
            await asyncio.to_thread(self.spans.close)

    def _observe(self, predictor: Predictor) -> None:
        predictor.observe(self.metrics)
        card, engine = predictor.card, predictor.engine
        self.metrics.model(card.name, card.version, engine.name, engine.device)
        self.metrics.expect(card.labels, KINDS)

    async def _reload(self) -> None:
        async with self._reloading:
            try:
                candidate = await asyncio.to_thread(self.prepare, self._load)
            except UNUSABLE as error:
                logger.error("reload: %s", error)
                raise RequestError(RELOAD_FAILED, str(error)) from None
            self.put_in_place(candidate)

    async def _retire(self, replaced: Predictor | Explainer) -> None:
        """Closes what was replaced when no request can have it any more."""
        settings = self.settings
        await asyncio.sleep(settings.body_timeout_s + settings.request_timeout_s + 1)
        self._replaced.discard(replaced)
        await replaced.close()


def create_service(
    settings: Settings, load: Callable[[Settings], Predictor], metrics_folder: Path | None = None
) -> Service:
    """A service that has yet to start.

    Args:
        settings: of the service.
        load: makes the predictor, ready to answer.
        metrics_folder: where the workers of one service share what they count; None: it is one.
    """
    spans = None
    if settings.otlp_endpoint:
        from app.telemetry.spans import Spans

        spans = Spans(settings.otlp_endpoint)
    return Service(settings, load, Metrics(metrics_folder), spans)


class Lifespan:
    """ASGI middleware: starts and stops the service; a failed start is told in one sentence."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        try:
            await self._service.start()
        except (CheckpointError, EngineError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._service.stop()
        await send({"type": "lifespan.shutdown.complete"})
