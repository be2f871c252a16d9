"""Start, readiness and an end that loses no request."""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from app.engines import EngineError
from app.explainer import Explainer
from app.predictor import Predictor
from app.problems import NOT_READY, RequestError
from app.settings import Settings
from model.checkpoint import CheckpointError


class Service:
    """What the API answers with: the settings, and the predictor between start and stop."""

    def __init__(self, settings: Settings, load: Callable[[Settings], Predictor]) -> None:
        self.settings = settings
        self.draining = False
        self._load = load
        self._predictor: Predictor | None = None
        self._explainer: Explainer | None = None

    @classmethod
    def of(cls, connection: HTTPConnection) -> "Service":
        """The service that a request came to."""
        service: Service = connection.app.state.service
        return service

    @property
    def predictor(self) -> Predictor:
        """The predictor.

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

    def deadline(self) -> float:
        """Until when a request whose body is read by now must be answered, on the loop's clock."""
        return asyncio.get_running_loop().time() + self.settings.request_timeout_s

    async def start(self) -> None:
        """Loads and warms up the predictor.

        Raises:
            CheckpointError, EngineError: see `app.predictor.load_predictor`.
        """
        self._predictor = await asyncio.to_thread(self._load, self.settings)
        self._drain_before_termination()

    async def stop(self) -> None:
        """Waits for the images taken to be answered."""
        self.draining = True
        if self._explainer is not None:
            await self._explainer.close()
        if self._predictor is not None:
            await self._predictor.close()

    def _drain_before_termination(self) -> None:
        """Makes SIGTERM end readiness at once and reach the server a delay later.

        So a balancer has time to notice, and its last requests are still accepted.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        server = signal.getsignal(signal.SIGTERM)
        loop = asyncio.get_running_loop()

        def drain(number: int, frame: FrameType | None) -> None:
            delay = 0.0 if self.draining else self.settings.drain_delay_s  # the second is impatient
            self.draining = True
            if callable(server):
                loop.call_soon_threadsafe(loop.call_later, delay, server, number, None)

        if callable(server):  # else nothing would end the process
            signal.signal(signal.SIGTERM, drain)


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
