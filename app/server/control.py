"""The pipe between the supervisor and a worker: its messages and both of its ends.

A reload is a two-phase commit: `Prepare`, then `Commit`, each answered by `Done`, or `Abort`.
"""

import asyncio
import contextlib
import itertools
import queue
import shutil
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from app.gate.reload import Release, Replacement, prepare, put_in_place, told
from app.gate.service import Service
from app.wire.problems import RELOAD_FAILED, RequestError

HEARTBEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class Prepare:
    """Load this release; go on serving the one before."""

    reload: int  # its number, which `Done` repeats
    release: Release


@dataclass(frozen=True, slots=True)
class Commit:
    """Serve the prepared release from now on."""

    reload: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Drop the prepared release, if there is one."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A reload that this worker requested has ended; `error` says why it failed, if it did."""

    request: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """This worker can answer requests. The first one says that it has started."""


@dataclass(frozen=True, slots=True)
class Done:
    """The latest `Prepare` or `Commit` of a reload was carried out, or failed with this error."""

    reload: int
    error: str | None


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """A client of this worker asks for a reload of all workers; answered by `Reloaded`."""

    request: int  # its number, which `Reloaded` repeats


Order = Prepare | Commit | Abort | Reloaded  # from the supervisor
Report = Heartbeat | Done | ReloadRequested  # from a worker


class SupervisorEnd:
    """The supervisor's end of the pipe to one worker. None of its methods waits for the worker.

    Attributes:
        pipe: to wait for; readable when there is a report.
    """

    def __init__(self, pipe: "Connection[Order, Report]") -> None:
        self.pipe = pipe
        self._orders = queue.SimpleQueue[Order | None]()
        # A worker that hangs reads nothing, and a full pipe must not hold up the other workers.
        threading.Thread(target=self._deliver, daemon=True).start()

    def send(self, order: Order) -> None:
        """Sends an order, in a thread."""
        self._orders.put(order)

    def received(self) -> list[Report]:
        """The reports that have come by now."""
        reports = []
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                reports.append(self.pipe.recv())
        return reports

    def close(self) -> None:
        """Closes the pipe and ends the thread. The worker must have ended."""
        self.pipe.close()
        self._orders.put(None)

    def _deliver(self) -> None:
        with contextlib.suppress(OSError):
            while (order := self._orders.get()) is not None:
                self.pipe.send(order)


class WorkerEnd:
    """A worker's end of the pipe: sends heartbeats, and carries out what the supervisor orders.

    Args:
        service: that this worker serves.
        pipe: to the supervisor.
        metrics_folder: that the workers share; removed when the supervisor has gone.
    """

    def __init__(
        self, service: Service, pipe: "Connection[Report, Order]", metrics_folder: Path
    ) -> None:
        self._service = service
        self._pipe = pipe
        self._metrics_folder = metrics_folder
        self._prepared: Replacement | None = None
        self._requests: dict[int, asyncio.Future[str | None]] = {}
        self._numbers = itertools.count()
        self._orders = asyncio.Queue[Order]()

    def start(self, stop: Callable[[], None]) -> None:
        """Sends the first heartbeat, and listens from now on in a thread.

        Args:
            stop: called on the event loop when the supervisor has gone.
        """
        self._loop = asyncio.get_running_loop()
        self._service.reload = self._request_reload
        self._tasks = [self._loop.create_task(work()) for work in (self._beat, self._obey)]
        threading.Thread(target=self._listen, args=(stop,), daemon=True).start()

    async def _beat(self) -> None:
        while True:
            model = self._service.models.default
            if model is not None and not model.predictor.stuck():
                self._send(Heartbeat())
            await asyncio.sleep(HEARTBEAT_S)

    async def _request_reload(self) -> None:
        number = next(self._numbers)
        self._requests[number] = self._loop.create_future()
        self._send(ReloadRequested(number))
        try:
            error = await self._requests[number]
        finally:
            del self._requests[number]
        if error is not None:
            raise RequestError(RELOAD_FAILED, error)

    def _listen(self, stop: Callable[[], None]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                order = self._pipe.recv()
                if isinstance(order, Reloaded):
                    self._loop.call_soon_threadsafe(self._end_request, order)
                else:
                    self._loop.call_soon_threadsafe(self._orders.put_nowait, order)
        # Without a supervisor nobody would stop this worker, or remove what it shares.
        shutil.rmtree(self._metrics_folder, ignore_errors=True)
        self._loop.call_soon_threadsafe(stop)

    async def _obey(self) -> None:
        """Carries out one order after the other."""
        while True:
            match await self._orders.get():
                case Prepare(number, release):
                    await self._carry_out(number, self._prepare(release))
                case Commit(number):
                    await self._carry_out(number, self._commit())
                case Abort():
                    await self._drop()

    async def _carry_out(self, reload: int, step: Coroutine[None, None, None]) -> None:
        """Answers the supervisor, which waits for it, whatever the step raises."""
        error = None
        try:
            await step
        except Exception as raised:
            error = told(raised)
        self._send(Done(reload, error))

    async def _prepare(self, release: Release) -> None:
        await self._drop()
        self._prepared = await prepare(self._service, release)

    async def _commit(self) -> None:
        if self._prepared is None:
            raise RuntimeError("there is nothing to commit")
        put_in_place(self._service, self._prepared)
        self._prepared = None

    async def _drop(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:  # its threads would keep the model in memory
            await prepared.model.close()

    def _end_request(self, end: Reloaded) -> None:
        request = self._requests.get(end.request)
        if request is not None and not request.done():  # else its client has gone
            request.set_result(end.error)

    def _send(self, report: Report) -> None:
        with contextlib.suppress(OSError):  # the supervisor has gone, see `_listen`
            self._pipe.send(report)
