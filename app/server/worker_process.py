"""A worker as its supervisor sees it: a process, and the pipe to it."""

import multiprocessing
import socket
import time
from pathlib import Path

from app.server.control import SupervisorEnd
from app.server.worker import serve_under_supervisor
from app.settings import Settings
from model.checkpoint.folder import Checkpoint


class WorkerProcess:
    """Starts a worker.

    Attributes:
        checkpoint: what it serves, or will serve once it has started.
        started, heard: its start and its latest report, on the monotonic clock.
        ready: whether it has started.
        control: the pipe to it.
    """

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
        self._stopping = False
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.process = context.Process(
            target=serve_under_supervisor,
            args=(settings, checkpoint, listener, theirs, metrics_folder),
            name=f"worker-{number}",
        )
        self.process.start()
        theirs.close()
        self.control = SupervisorEnd(ours)

    @property
    def stays(self) -> bool:
        """Whether it serves and goes on to."""
        return self.ready and not self._stopping

    def stop(self) -> None:
        """Lets it end when it has answered what it has taken."""
        self._stopping = True
        self.process.terminate()

    def close(self) -> None:
        """Closes the pipe to it. It must have ended."""
        self.process.join()
        self.control.close()
