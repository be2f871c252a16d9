"""The pipe between the supervisor and a worker: its messages and both of its ends.

A reload is a two-phase commit: `Prepare`, then `Commit` or `Abort`, each answered by `Done`.
"""

import asyncio
import contextlib
import functools
import logging
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import assert_never

from app.gate.reload import UNUSABLE, Replacement, prepare, put_in_place
from app.gate.service import Service
from app.inference.predictor import load_predictor
from app.wire.problems import RELOAD_FAILED, RequestError
from model.checkpoint.folder import Checkpoint

HEARTBEAT_S = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepare:
    """Load and prove this checkpoint; go on serving the one before."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Commit:
    """Serve the prepared checkpoint from now on."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Drop the prepared checkpoint, if there is one."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The reload that this worker requested has ended; `error` says why it failed, if it did."""

    error: str | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """This worker can answer requests. The first one says that it has started."""


@dataclass(frozen=True, slots=True)
class Done:
    """The latest `Prepare`, `Commit` or `Abort` was carried out, or failed with this error."""

    error: str | None


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """A client of this worker asks for a reload of all workers; answered by `Reloaded`."""


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
        self._reloaded: asyncio.Future[str | None] | None = None

    def start(self, stop: Callable[[], None]) -> None:
        """Sends the first heartbeat, and listens from now on in a thread.

        Args:
            stop: called on the event loop when the supervisor has gone.
        """
        self._loop = asyncio.get_running_loop()
        self._service.reload = self._request_reload
        self._beating = self._loop.create_task(self._beat())
        threading.Thread(target=self._listen, args=(stop,), daemon=True).start()

    async def _beat(self) -> None:
        while True:
            if not self._service.predictor.stuck():
                self._send(Heartbeat())
            await asyncio.sleep(HEARTBEAT_S)

    async def _request_reload(self) -> None:
        if self._reloaded is None:
            self._reloaded = self._loop.create_future()
            self._send(ReloadRequested())
        error = await asyncio.shield(self._reloaded)
        if error is not None:
            raise RequestError(RELOAD_FAILED, error)

    def _listen(self, stop: Callable[[], None]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._obey(self._pipe.recv())
        # Without a supervisor nobody would stop this worker, or remove what it shares.
        shutil.rmtree(self._metrics_folder, ignore_errors=True)
        self._loop.call_soon_threadsafe(stop)

    def _obey(self, order: Order) -> None:
        match order:
            case Prepare(checkpoint):
                self._carry_out(functools.partial(self._prepare, checkpoint))
            case Commit():
                self._loop.call_soon_threadsafe(self._carry_out, self._commit)
            case Abort():
                self._loop.call_soon_threadsafe(self._carry_out, self._abort)
            case Reloaded(error):
                self._loop.call_soon_threadsafe(self._end_request, error)
            case _:
                assert_never(order)

    def _carry_out(self, step: Callable[[], None]) -> None:
        """Answers the supervisor, which waits for it, whatever the step raises."""
        try:
            step()
        except UNUSABLE as error:
            self._send(Done(str(error)))
        except Exception as error:
            logger.exception("reload: an unexpected error")
            self._send(Done(f"an unexpected {type(error).__name__}: {error}"))
        else:
            self._send(Done(None))

    def _prepare(self, checkpoint: Checkpoint) -> None:
        load = functools.partial(load_predictor, checkpoint=checkpoint)
        self._prepared = prepare(self._service, load)

    def _commit(self) -> None:
        if self._prepared is None:
            raise RuntimeError("there is nothing to commit")
        put_in_place(self._service, self._prepared)
        self._prepared = None

    def _abort(self) -> None:
        if self._prepared is not None:  # its threads would keep the model in memory
            self._closing = self._loop.create_task(self._prepared.model.close())
        self._prepared = None

    def _end_request(self, error: str | None) -> None:
        if self._reloaded is not None:
            self._reloaded.set_result(error)
        self._reloaded = None

    def _send(self, report: Report) -> None:
        with contextlib.suppress(OSError):  # the supervisor has gone, see `_listen`
            self._pipe.send(report)
