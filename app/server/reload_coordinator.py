"""A reload by all workers or none: the coordinator of a two-phase commit."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from app.server.control import Abort, Commit, Prepare, Reloaded
from app.server.worker_process import WorkerProcess
from model.checkpoint.folder import Checkpoint, CheckpointError, read_checkpoint

# A worker that has not answered by then is killed.
RELOAD_LIMIT_S = 120.0

logger = logging.getLogger(__name__)


@dataclass
class _Reload:
    """A reload under way.

    Attributes:
        checkpoint: to be served next.
        workers: that take part, as far as they live.
        order: the latest one, which they have or have not answered yet.
        unanswered: those that have not.
        error: why nothing will come of it, if so.
    """

    checkpoint: Checkpoint
    workers: set[WorkerProcess]
    order: Prepare | Commit | Abort
    unanswered: set[WorkerProcess] = field(default_factory=set)
    error: str | None = None
    until: float = field(default_factory=lambda: time.monotonic() + RELOAD_LIMIT_S)


class ReloadCoordinator:
    """Makes every worker prove a checkpoint before any of them serves it.

    Args:
        weights: the checkpoint folder.
        checkpoint: what is served first.
        workers: the supervisor's list, which changes.

    Attributes:
        checkpoint: what is served now, and by each worker that starts.
    """

    def __init__(
        self, weights: Path, checkpoint: Checkpoint, workers: Sequence[WorkerProcess]
    ) -> None:
        self.checkpoint = checkpoint
        self._weights = weights
        self._workers = workers
        self._askers: list[WorkerProcess] = []
        self._reload: _Reload | None = None

    def request(self, asker: WorkerProcess | None = None) -> None:
        """Begins a reload. The end of one that is under way answers this request too."""
        if asker is not None:
            self._askers.append(asker)
        if self._reload is not None:
            return
        workers = {worker for worker in self._workers if worker.stays}
        if not workers:
            self._end("no worker is ready to prove the checkpoint")
            return
        try:
            checkpoint = read_checkpoint(self._weights)
        except CheckpointError as error:
            self._end(str(error))
            return
        prepare = Prepare(checkpoint)
        self._reload = _Reload(checkpoint, workers, prepare)
        self._order(self._reload, prepare)

    def answered(self, worker: WorkerProcess, error: str | None) -> None:
        """A worker has carried out its order, or failed to."""
        reload = self._reload
        if reload is None or worker not in reload.unanswered:
            return
        if isinstance(reload.order, Prepare):
            reload.error = reload.error or error
        elif error is not None:
            worker.stop()  # its successor starts with what is served now
        reload.unanswered.discard(worker)
        self._go_on(reload)

    def ended(self, worker: WorkerProcess) -> None:
        """A worker's process has ended."""
        reload = self._reload
        if reload is None or worker not in reload.workers:
            return
        if isinstance(reload.order, Prepare) and worker in reload.unanswered:
            reload.error = reload.error or "a worker ended before it had proved the checkpoint"
        reload.workers.discard(worker)
        reload.unanswered.discard(worker)
        self._go_on(reload)

    def kill_the_late(self) -> None:
        """Kills the workers that have not answered in time."""
        if self._reload is not None and time.monotonic() > self._reload.until:
            for worker in self._reload.unanswered:
                worker.process.kill()

    def _order(self, reload: _Reload, order: Prepare | Commit | Abort) -> None:
        reload.order = order
        reload.unanswered = set(reload.workers)
        for worker in reload.workers:
            worker.control.send(order)

    def _go_on(self, reload: _Reload) -> None:
        while not reload.unanswered:
            match reload.order:
                case Prepare() if reload.error is None:
                    self._switch(reload)
                    self._order(reload, Commit())
                case Prepare():
                    self._order(reload, Abort())
                case Commit() | Abort():
                    self._end(reload.error)
                    return
                case _:
                    assert_never(reload.order)

    def _switch(self, reload: _Reload) -> None:
        self.checkpoint = reload.checkpoint
        for worker in reload.workers:
            worker.checkpoint = reload.checkpoint
        for worker in self._workers:
            if worker.stays and worker.checkpoint is not self.checkpoint:
                worker.stop()  # it started meanwhile; its successor has the new one

    def _end(self, error: str | None) -> None:
        if error is not None:
            logger.error("reload: %s", error)
        for asker in self._askers:
            asker.control.send(Reloaded(error))
        self._askers.clear()
        self._reload = None
