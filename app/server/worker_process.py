"""A worker as its supervisor sees it: a process, and the pipe to it."""

import math
import multiprocessing
import socket
import time
from pathlib import Path

from app.gate.reload import Release
from app.server.control import SupervisorEnd
from app.server.worker import LATE_S, serve_under_supervisor
from app.settings import Settings


def grace_s(settings: Settings) -> float:
    """Seconds in which a process that was told to stop answers what it has taken, and ends."""
    return settings.drain_delay_s + settings.request_timeout_s + LATE_S + 0.1


class WorkerProcess:
    """Starts a worker.

    Attributes:
        release: what it serves, or will serve once it has started.
        started, heard: its start and its latest report, on the monotonic clock.
        ready: whether it has started.
        stop_by: when it must have ended, on the monotonic clock.
        control: the pipe to it.
    """

    def __init__(
        self,
        number: int,
        settings: Settings,
        release: Release,
        listener: socket.socket,
        metrics_folder: Path,
    ) -> None:
        self.release = release
        self._settings = settings
        self.started = self.heard = time.monotonic()
        self.ready = False
        self.stop_by = math.inf
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.process = context.Process(
            target=serve_under_supervisor,
            args=(settings, release, listener, theirs, metrics_folder),
            name=f"worker-{number}",
        )
        self.process.start()
        theirs.close()
        self.control = SupervisorEnd(ours)

    @property
    def stays(self) -> bool:
        """Whether it serves and goes on to."""
        return self.ready and self.stop_by == math.inf

    def stop(self) -> None:
        """Lets it end when it has answered what it has taken."""
        self.stop_by = min(self.stop_by, time.monotonic() + grace_s(self._settings))
        self.process.terminate()

    def close(self) -> None:
        """Closes the pipe to it. It must have ended."""
        self.process.join()
        self.control.close()
