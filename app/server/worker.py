"""One process that serves: uvicorn, told by signals when to stop and what to reload."""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from app.gate.reload import Release
from app.inference.predictor import load_predictor
from app.server.connections import KEEP_ALIVE_S, ConnectionLimits, limited, sweep
from app.server.control import Order, Report, WorkerEnd
from app.settings import Settings
from app.telemetry.logs import configuration
from app.wire.problems import RequestError

if TYPE_CHECKING:
    from app.application import Application

FAILURE = 1
# A request on its way over a connection that was taken still gets its answer.
LINGER_S = 0.4
# The process ends this long after the last request must have been answered, whatever hangs.
LATE_S = 0.8
# The event loop takes one connection per listening descriptor and turn, and under overload its
# turns are long: with a single one newcomers would wait for seconds.
ACCEPTS = 16
# Seconds after which a thread that has computed a batch gets its turn, however busy the event loop.
SWITCH_S = 0.0005

logger = logging.getLogger(__name__)


def descriptors(listener: socket.socket) -> list[socket.socket]:
    """A bound socket as often as connections are to be taken from it at a time.

    None of them ever blocks, not even while it is made: all workers share that flag, and one whose
    event loop waits for a connection answers nobody.
    """
    listener.setblocking(False)
    return [listener, *(listener.dup() for _ in range(ACCEPTS - 1))]


def _waiting_at(listener: socket.socket) -> list[socket.socket]:
    """The connections that wait to be taken: they would be reset with the end of their listener."""
    taken = []
    with contextlib.suppress(OSError):  # no more, as a rule
        while True:
            taken.append(listener.accept()[0])
    return taken


class Server(uvicorn.Server):
    """uvicorn for one service.

    SIGTERM and SIGINT end readiness at once and the process when what is in flight is answered; a
    second one ends it now. SIGHUP reloads. Under a supervisor only SIGTERM counts, and once.

    Args:
        app: that answers.
        on_ready: called when connections are accepted.
        supervised: whether a supervisor gets the signals.
    """

    def __init__(
        self, app: "Application", on_ready: Callable[[], None], *, supervised: bool
    ) -> None:
        service, settings = app.service, app.service.settings
        self._protocol = limited(ConnectionLimits.of(settings), service)
        config = uvicorn.Config(
            app,
            http=self._protocol,
            ws="none",
            lifespan="on",
            log_config=configuration(settings.log_format),
            log_level="error",  # the application logs what matters
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here asks who the client is
            timeout_keep_alive=KEEP_ALIVE_S,
            # asyncio takes fractions of a second
            timeout_graceful_shutdown=cast(int, settings.request_timeout_s),
        )
        super().__init__(config)
        self._settings = settings
        self._service = service
        self._on_ready = on_ready
        self._supervised = supervised
        self._reloads: set[asyncio.Future[None]] = set()

    def serve_on(self, listener: socket.socket) -> None:
        """Serves at a bound socket until a signal."""
        sys.setswitchinterval(SWITCH_S)
        self.run(descriptors(listener))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # to look through all that the start has made would take 0.1 s each time
        gc.enable()
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            sweep(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuses connections, answers on those that were taken, then closes."""
        for listener in sockets or []:
            listener.listen(0)  # what waits to be taken is taken; hardly any comes to it
        for _ in range(3):
            await asyncio.sleep(0)
        taken = _waiting_at(sockets[0]) if sockets else []
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        protocol = functools.partial(
            self._protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for connection in taken:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        await asyncio.sleep(LINGER_S)
        await super().shutdown(sockets)

    def drain(self) -> None:
        """Ends readiness now, and the server once balancers have had time to notice."""
        if self._service.draining:
            return
        self._service.draining = True
        delay = self._settings.drain_delay_s if self.started else 0.0
        way_out = threading.Timer(delay + self._settings.request_timeout_s + LATE_S, self._leave)
        way_out.daemon = True
        way_out.start()
        asyncio.get_running_loop().call_later(delay, setattr, self, "should_exit", True)

    def _leave(self) -> None:
        """Ends the process where something hangs: a computation, or a collector of traces."""
        logger.error("the way out takes too long: what hangs is left behind")
        os._exit(FAILURE if self.server_state.tasks else 0)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def stop(number: int, frame: FrameType | None) -> None:
            if self._service.draining and not self._supervised:
                logger.warning("a second signal: what is in flight is lost")
                os._exit(FAILURE)
            loop.call_soon_threadsafe(self.drain)

        def reload(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._reload)

        handlers: dict[int, Any] = {signal.SIGTERM: stop}
        handlers[signal.SIGINT] = signal.SIG_IGN if self._supervised else stop
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = signal.SIG_IGN if self._supervised else reload
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        yield
        for number, former in before.items():
            signal.signal(number, former)

    def _reload(self) -> None:
        async def reload() -> None:
            with contextlib.suppress(RequestError):  # it is logged
                await self._service.reload()

        task = asyncio.ensure_future(reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


def serve(
    settings: Settings,
    release: Release,
    listener: socket.socket,
    on_ready: Callable[[], None],
) -> int:
    """Serves in this process until a signal; the exit code.

    Args:
        settings: of the service.
        release: to serve first.
        listener: bound to its address.
        on_ready: called when connections are accepted.
    """
    try:
        app = _application(settings, release)
        Server(app, on_ready, supervised=False).serve_on(listener)
    except SystemExit as stop:  # 0 for a signal during the start; a failure is logged
        return FAILURE if stop.code else 0
    return 0


def serve_under_supervisor(
    settings: Settings,
    release: Release,
    listener: socket.socket,
    pipe: "Connection[Report, Order]",
    metrics_folder: Path,
) -> None:
    """Serves in this process, as one of several.

    Args:
        settings: of the service.
        release: to serve first.
        listener: bound to the address that all share.
        pipe: to the supervisor, whose end is the sign to stop.
        metrics_folder: where the workers share what they count.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl+C, which the supervisor gets
    app = _application(settings, release, metrics_folder)
    control = WorkerEnd(app.service, pipe, metrics_folder)
    server = Server(app, lambda: control.start(server.drain), supervised=True)
    server.serve_on(listener)


def _application(
    settings: Settings, release: Release, metrics_folder: Path | None = None
) -> "Application":
    """The application, made while its model is loaded in another thread."""
    loader = ThreadPoolExecutor(1, "loader")
    predictor = loader.submit(load_predictor, settings, release.checkpoint)
    # To import it takes about as long as all that comes before.
    from app.application import Application, create_service

    service = create_service(settings, release.keys, metrics_folder)
    app = Application(service, predictor.result)
    loader.shutdown(wait=False)
    return app
