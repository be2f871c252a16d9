"""Several workers on one address: those that die or hang are replaced."""

import itertools
import logging.config
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import assert_never

from app.gate.reload import Release
from app.server.control import Done, Heartbeat, ReloadRequested, Report
from app.server.reload_coordinator import ReloadCoordinator
from app.server.signals import Signals
from app.server.worker import FAILURE
from app.server.worker_process import WorkerProcess, grace_s
from app.settings import Settings
from app.telemetry.logs import configuration

# A worker that has not told for so long that it can answer is taken for hung.
SILENCE_S = 30.0
START_LIMIT_S = 120.0
# A worker that dies sooner than this after its start is replaced after a pause, which doubles.
YOUNG_S = 10.0
MAX_PAUSE_S = 30.0

logger = logging.getLogger(__name__)


class Supervisor:
    """Keeps `settings.workers` workers serving until a signal.

    Args:
        settings: of the service.
        release: to serve first; workers that are replaced serve it too, whatever has become of
            its files.
        listener: bound; closed here when the service stops.
        on_ready: called when all workers are ready.
        metrics_folder: where the workers share what they count.
    """

    def __init__(
        self,
        settings: Settings,
        release: Release,
        listener: socket.socket,
        on_ready: Callable[[], None],
        metrics_folder: Path,
    ) -> None:
        self._settings = settings
        self._metrics_folder = metrics_folder
        self._listener = listener
        self._on_ready = on_ready
        self._workers: list[WorkerProcess] = []
        self._reloads = ReloadCoordinator(settings, release, self._workers)
        self._numbers = itertools.count(1)
        self._been_ready = False
        self._stop_by: float | None = None
        self._start_no_sooner = 0.0
        self._pause_s = 0.0

    def run(self) -> int:
        """Returns the exit code when all workers have ended."""
        logging.config.dictConfig(configuration(self._settings.log_format))
        with Signals() as signals:
            while True:
                self._start_missing()
                self._wait(signals)
                for number in signals.received():
                    if number == signal.SIGHUP:
                        self._reloads.request()
                    elif self._stop_by is None:
                        self._stop()
                    else:
                        logger.warning("a second signal: what is in flight is lost")
                        self._kill_all()
                        return FAILURE
                for worker in self._workers:
                    for report in worker.control.received():
                        self._hear(worker, report)
                if not self._tend():
                    self._kill_all()
                    return FAILURE
                if self._stop_by is not None and not self._workers:
                    return 0

    def _wait(self, signals: Signals) -> None:
        """Until something happens, or a second has passed."""
        pipes = [self._reloads.pipe, *(worker.control.pipe for worker in self._workers)]
        sentinels = [worker.process.sentinel for worker in self._workers]
        now, pause = time.monotonic(), 1.0
        for moment in (self._start_no_sooner, self._stop_by):
            if moment is not None and now < moment:
                pause = min(pause, moment - now)
        wait([signals.socket, *pipes, *sentinels], timeout=pause)

    def _start_missing(self) -> None:
        if self._stop_by is not None or time.monotonic() < self._start_no_sooner:
            return
        for _ in range(self._settings.workers - len(self._workers)):
            worker = WorkerProcess(
                next(self._numbers),
                self._settings,
                self._reloads.release,
                self._listener,
                self._metrics_folder,
            )
            self._workers.append(worker)

    def _hear(self, worker: WorkerProcess, report: Report) -> None:
        worker.heard = time.monotonic()
        match report:
            case Heartbeat():
                if not worker.ready:
                    self._welcome(worker)
            case Done(number, error):
                self._reloads.answered(worker, number, error)
            case ReloadRequested(number):
                self._reloads.request(worker, number)
            case _:
                assert_never(report)

    def _welcome(self, worker: WorkerProcess) -> None:
        """Counts a worker among those that are ready."""
        worker.ready = True
        if worker.release is not self._reloads.release:
            worker.stop()  # a reload came between: its successor has the new one
        if not self._been_ready and all(other.ready for other in self._workers):
            self._been_ready = True
            self._on_ready()

    def _tend(self) -> bool:
        """Kills hung workers and forgets dead ones; false where the service can't start."""
        now = time.monotonic()
        if self._stop_by is not None and now > self._stop_by:
            self._kill_all()
        self._reloads.tend()
        for worker in list(self._workers):
            if not worker.process.is_alive():
                if not self._forget(worker, now):
                    return False
            elif (
                now - worker.heard > (SILENCE_S if worker.ready else START_LIMIT_S)
                or now > worker.stop_by
            ):
                logger.error("worker %s hangs: it is killed", worker.process.pid)
                worker.process.kill()
        return True

    def _forget(self, worker: WorkerProcess, now: float) -> bool:
        """Makes room for a dead worker's successor; false where the service can't start."""
        self._workers.remove(worker)
        worker.close()
        self._reloads.ended(worker)
        if self._stop_by is not None:
            return True
        if not self._been_ready:
            return False
        code = worker.process.exitcode
        logger.error("worker %s ended with %s: another follows", worker.process.pid, code)
        young = now - worker.started < YOUNG_S
        self._pause_s = min(MAX_PAUSE_S, max(0.5, 2 * self._pause_s)) if young else 0.0
        self._start_no_sooner = now + self._pause_s
        return True

    def _stop(self) -> None:
        # Connections are refused when the last worker stops listening, not kept waiting for none.
        self._listener.close()
        self._reloads.stop()
        self._stop_by = time.monotonic() + grace_s(self._settings)
        for worker in self._workers:
            worker.stop()

    def _kill_all(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
