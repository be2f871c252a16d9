"""Several workers on one address: replaces those that die or hang, and reloads them all or none."""

import contextlib
import itertools
import logging.config
import multiprocessing
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from app.server.worker import FAILURE, serve_under_supervisor
from app.settings import Settings
from app.telemetry.logs import configuration
from model.checkpoint.folder import Checkpoint, CheckpointError, read_checkpoint

# A worker that has not told for so long that it can answer is taken for hung.
SILENCE_S = 30.0
START_LIMIT_S = 120.0
# A worker that dies sooner than this after its start is replaced after a pause, which doubles.
YOUNG_S = 10.0
MAX_PAUSE_S = 30.0

logger = logging.getLogger(__name__)


class _Worker:
    """A process that serves, and the pipe to it."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        checkpoint: Checkpoint,
        listener: socket.socket,
        metrics_folder: Path,
    ) -> None:
        self.checkpoint = checkpoint
        self.started = self.heard = time.monotonic()
        self.ready = False
        context = multiprocessing.get_context("spawn")
        self.pipe: Pipe
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve_under_supervisor,
            args=(settings, checkpoint, listener, theirs, metrics_folder),
            name=f"worker-{number}",
        )
        self.process.start()
        theirs.close()
        self._orders = queue.SimpleQueue[tuple[str, object]]()
        # A worker that hangs reads nothing: waiting for it must not hold up the others.
        threading.Thread(target=self._deliver, daemon=True).start()

    def order(self, order: str, argument: object = None) -> None:
        """Sends an order, see `app.server.worker`; returns at once."""
        self._orders.put((order, argument))

    def messages(self) -> list[tuple[str, str | None]]:
        """What it has sent by now."""
        messages = []
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                messages.append(self.pipe.recv())
        return messages

    def forget(self) -> None:
        """After its death."""
        self.process.join()
        self.pipe.close()
        self.order("end")  # which can't be sent, and so ends the thread

    def _deliver(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                self.pipe.send(self._orders.get())


class _Reload:
    """A reload under way: every worker proves the checkpoint before any puts it in place."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.step = "prepare"
        self.waiting_for: set[_Worker] = set()
        self.wrong: str | None = None
        self.until = time.monotonic() + START_LIMIT_S


class Supervisor:
    """Keeps `settings.workers` workers serving until a signal.

    Args:
        settings: of the service.
        checkpoint: to serve first; workers that are replaced serve it too, whatever has become of
            its folder.
        listener: bound; closed here when the service stops.
        on_ready: called when all workers are ready.
        metrics_folder: where the workers share what they count.
    """

    def __init__(
        self,
        settings: Settings,
        checkpoint: Checkpoint,
        listener: socket.socket,
        on_ready: Callable[[], None],
        metrics_folder: Path,
    ) -> None:
        self._settings = settings
        self._metrics_folder = metrics_folder
        self._checkpoint = checkpoint
        self._listener = listener
        self._on_ready = on_ready
        self._workers: list[_Worker] = []
        self._reload: _Reload | None = None
        self._askers: list[_Worker] = []  # for the reload under way
        self._names = itertools.count(1)
        self._been_ready = False
        self._stop_by: float | None = None
        self._start_no_sooner = 0.0
        self._pause_s = 0.0

    def run(self) -> int:
        """Returns the exit code when all workers have ended."""
        logging.config.dictConfig(configuration(self._settings.log_format))
        ours, wake = socket.socketpair()
        for end in (ours, wake):
            end.setblocking(False)
        with _signals(wake):
            while True:
                self._start_missing()
                self._wait(ours)
                for number in _received(ours):
                    if number == getattr(signal, "SIGHUP", None):
                        self._begin_reload(None)
                    elif self._stop_by is None:
                        self._stop()
                    else:
                        logger.warning("a second signal: what is in flight is lost")
                        self._kill_all()
                        return FAILURE
                for worker in self._workers:
                    for message, argument in worker.messages():
                        self._hear(worker, message, argument)
                if not self._tend():
                    self._kill_all()
                    return FAILURE
                if self._stop_by is not None and not self._workers:
                    return 0

    def _wait(self, ours: socket.socket) -> None:
        """Until something happens, or a second has passed."""
        pipes = [worker.pipe for worker in self._workers]
        sentinels = [worker.process.sentinel for worker in self._workers]
        pause = self._start_no_sooner - time.monotonic()
        wait([ours, *pipes, *sentinels], timeout=pause if 0 < pause < 1 else 1)

    def _start_missing(self) -> None:
        missing = self._settings.workers - len(self._workers)
        if self._stop_by is not None or time.monotonic() < self._start_no_sooner:
            return
        for _ in range(missing):
            worker = _Worker(
                next(self._names),
                self._settings,
                self._checkpoint,
                self._listener,
                self._metrics_folder,
            )
            self._workers.append(worker)

    def _hear(self, worker: _Worker, message: str, argument: str | None) -> None:
        worker.heard = time.monotonic()
        if message == "reload":
            self._begin_reload(worker)
        elif message == "done" and self._reload is not None:
            self._reload.wrong = self._reload.wrong or argument
            self._reload.waiting_for.discard(worker)
            self._go_on_with_reload()
        elif not worker.ready:  # its first heartbeat
            worker.ready = True
            if worker.checkpoint is not self._checkpoint:
                worker.process.terminate()  # a reload came between: its successor has the new one
            if not self._been_ready and all(other.ready for other in self._workers):
                self._been_ready = True
                self._on_ready()

    def _tend(self) -> bool:
        """Looks after dead and hung workers; false where the service can't start."""
        now = time.monotonic()
        if self._stop_by is not None and now > self._stop_by:
            self._kill_all()
        if self._reload is not None and now > self._reload.until:
            for worker in self._reload.waiting_for:
                worker.process.kill()
        for worker in list(self._workers):
            if worker.process.is_alive():
                limit = SILENCE_S if worker.ready else START_LIMIT_S
                if now - worker.heard > limit:
                    logger.error("worker %s hangs: it is killed", worker.process.pid)
                    worker.process.kill()
                continue
            self._workers.remove(worker)
            worker.forget()
            if self._reload is not None:
                self._reload.waiting_for.discard(worker)
                self._go_on_with_reload()
            if self._stop_by is not None:
                continue
            if not self._been_ready:
                return False
            code = worker.process.exitcode
            logger.error("worker %s ended with %s: another follows", worker.process.pid, code)
            young = now - worker.started < YOUNG_S
            self._pause_s = min(MAX_PAUSE_S, max(0.5, 2 * self._pause_s)) if young else 0.0
            self._start_no_sooner = now + self._pause_s
        return True

    def _stop(self) -> None:
        settings = self._settings
        # Connections are refused when the last worker stops listening, not kept waiting for none.
        self._listener.close()
        grace_s = settings.drain_delay_s + settings.request_timeout_s + 5
        self._stop_by = time.monotonic() + grace_s
        for worker in self._workers:
            worker.process.terminate()

    def _kill_all(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def _begin_reload(self, asker: _Worker | None) -> None:
        if asker is not None:
            self._askers.append(asker)
        if self._reload is not None or self._stop_by is not None:
            return  # the answer to the one under way is the answer to this one
        try:
            self._reload = _Reload(read_checkpoint(self._settings.weights))
        except CheckpointError as error:
            self._end_reload(str(error))
            return
        self._order_all(self._reload)
        self._go_on_with_reload()

    def _order_all(self, reload: _Reload) -> None:
        reload.waiting_for = {worker for worker in self._workers if worker.ready}
        for worker in reload.waiting_for:
            worker.order(reload.step, reload.checkpoint if reload.step == "prepare" else None)

    def _go_on_with_reload(self) -> None:
        reload = self._reload
        if reload is None or reload.waiting_for:
            return
        if reload.step == "prepare":
            reload.step = "drop" if reload.wrong else "commit"
            if not reload.wrong:
                self._checkpoint = reload.checkpoint
            for worker in self._workers:
                if worker.ready:
                    worker.checkpoint = self._checkpoint
            self._order_all(reload)
        if not reload.waiting_for:
            self._end_reload(reload.wrong)

    def _end_reload(self, wrong: str | None) -> None:
        if wrong is not None:
            logger.error("reload: %s", wrong)
        for asker in self._askers:
            asker.order("reloaded", wrong)
        self._askers.clear()
        self._reload = None


@contextlib.contextmanager
def _signals(wake: socket.socket) -> Iterator[None]:
    """Within, signals are told as bytes on a socket."""

    def ignore(number: int, frame: FrameType | None) -> None:
        """The wakeup descriptor has told already."""

    numbers = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP"):
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, ignore) for number in numbers}
    former = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        for number, handler in before.items():
            signal.signal(number, handler)


def _received(ours: socket.socket) -> bytes:
    try:
        return ours.recv(64)
    except BlockingIOError:
        return b""
