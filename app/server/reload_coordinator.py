"""A reload by all workers or none: the coordinator of a two-phase commit."""

import enum
import itertools
import logging
import multiprocessing
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.gate.reload import Release, told
from app.server.control import Abort, Commit, Prepare, Reloaded
from app.server.worker_process import WorkerProcess
from app.settings import Settings

# A worker that has not carried out an order by then is replaced.
ORDER_LIMIT_S = 120.0
# While a reload is prepared, a worker that tells nothing for so long keeps all from it.
SILENCE_S = 10.0

logger = logging.getLogger(__name__)


class Stage(enum.Enum):
    """How far a reload has come."""

    PROVING = enum.auto()  # in a process of its own: no worker knows of it yet
    PREPARING = enum.auto()  # each worker loads it
    TRYING = enum.auto()  # one worker serves it
    COMMITTING = enum.auto()  # the others follow, and who starts from now on: nothing undoes it


@dataclass
class _Reload:
    """A reload under way.

    Attributes:
        number: tells its answers from those to another one.
        askers: workers and the numbers of their requests that its end answers.
        release: to be served next, once it is proved.
        error: why it was not proved.
        workers: that take part, as far as they live.
        unanswered: those that have not carried out the latest order.
        until: when they must have.
    """

    number: int
    askers: list[tuple[WorkerProcess, int]]
    stage: Stage = Stage.PROVING
    release: Release | None = None
    error: str | None = None
    workers: list[WorkerProcess] = field(default_factory=list)
    unanswered: set[WorkerProcess] = field(default_factory=set)
    until: float = 0.0


class ReloadCoordinator:
    """Makes a process of its own and then every worker prove a release before any serves it.

    No news, bad news and the death of a worker all mean: go on with what is served. One reload runs
    at a time; those who ask meanwhile share the next one.

    Args:
        settings: of the service, with the files that a reload reads.
        release: what is served first.
        workers: the supervisor's list, which changes.

    Attributes:
        release: what is served now, and by each worker that starts.
        pipe: to wait for; readable when there is something for `tend` to do.
    """

    def __init__(
        self, settings: Settings, release: Release, workers: Sequence[WorkerProcess]
    ) -> None:
        self.release = release
        self.pipe, self._proved = multiprocessing.Pipe(duplex=False)
        self._settings = settings
        self._workers = workers
        self._numbers = itertools.count(1)
        self._wanted = False
        self._askers: list[tuple[WorkerProcess, int]] = []
        self._reload: _Reload | None = None
        self._late = set[WorkerProcess]()  # that may hang in an order
        self._stopped = False

    def request(self, asker: WorkerProcess | None = None, number: int = 0) -> None:
        """Has the files read anew and put in place; `asker` is told of its request's end."""
        if self._stopped:
            if asker is not None:
                asker.control.send(Reloaded(number, "the service is shutting down"))
            return
        self._wanted = True
        if asker is not None:
            self._askers.append((asker, number))
        self._begin()

    def answered(self, worker: WorkerProcess, number: int, error: str | None) -> None:
        """A worker has carried out an order of a reload, or failed to."""
        self._late.discard(worker)
        reload = self._reload
        if reload is None or number != reload.number or worker not in reload.unanswered:
            return
        reload.unanswered.discard(worker)
        if error is not None and reload.stage in (Stage.TRYING, Stage.COMMITTING):
            worker.stop()  # its successor starts with what is served now
        if error is not None and reload.stage is not Stage.COMMITTING:
            self._abort(reload, error)
        else:
            self._go_on(reload)

    def ended(self, worker: WorkerProcess) -> None:
        """A worker's process has ended."""
        self._late.discard(worker)
        reload = self._reload
        if reload is None or worker not in reload.workers:
            return
        reload.workers.remove(worker)
        unanswered = worker in reload.unanswered
        reload.unanswered.discard(worker)
        if reload.stage is Stage.PREPARING or (reload.stage is Stage.TRYING and unanswered):
            self._abort(reload, "a worker ended before all had proved the checkpoint")
        else:
            self._go_on(reload)

    def tend(self) -> None:
        """Goes on with what is proved, and without those that are late; call it once a second."""
        while self.pipe.poll():
            self._hear(self.pipe.recv())
        now, reload = time.monotonic(), self._reload
        if reload is not None and reload.unanswered:
            silent = any(now - worker.heard > SILENCE_S for worker in reload.unanswered)
            if now > reload.until:
                self._late |= reload.unanswered
                self._go_on_without(reload, "a worker did not prove the checkpoint in time")
            elif silent and reload.stage is not Stage.COMMITTING:
                self._go_on_without(reload, "a worker tells nothing while the checkpoint is proved")
        self._replace_the_late()

    def stop(self) -> None:
        """Ends what can be ended, and begins no more: the service shuts down."""
        self._stopped = True
        reason = "the service is shutting down"
        if self._reload is not None and self._reload.stage in (Stage.PROVING, Stage.PREPARING):
            self._abort(self._reload, reason)
        _tell(self._askers, reason)
        self._askers.clear()

    def _begin(self) -> None:
        if self._reload is not None or not self._wanted or self._stopped:
            return
        reload = self._reload = _Reload(next(self._numbers), self._askers)
        self._wanted, self._askers = False, []
        threading.Thread(target=self._prove, args=(reload,), name="prover", daemon=True).start()

    def _prove(self, reload: _Reload) -> None:
        """In a thread: files may be slow to read, and a proof takes seconds."""
        try:
            reload.release = Release.proved(self._settings)
        except Exception as error:
            reload.error = told(error)
        self._proved.send(reload.number)

    def _hear(self, proved: int) -> None:
        reload = self._reload
        if reload is None or reload.number != proved:
            return  # it was aborted
        workers = [worker for worker in self._workers if worker.stays]
        if reload.release is None:
            self._abort(reload, reload.error or "nothing was proved")
        elif not workers:
            self._abort(reload, "no worker is ready to prove the checkpoint")
        else:
            reload.stage, reload.workers = Stage.PREPARING, workers
            self._order(reload, workers, Prepare(reload.number, reload.release))

    def _go_on(self, reload: _Reload) -> None:
        if reload.unanswered:
            return
        commit = Commit(reload.number)
        if reload.stage is Stage.PREPARING:
            reload.stage = Stage.TRYING
            self._order(reload, reload.workers[:1], commit)
        elif reload.stage is Stage.TRYING and reload.workers:
            self._switch(reload)
            reload.stage = Stage.COMMITTING
            self._order(reload, reload.workers[1:], commit)
            self._go_on(reload)
        elif reload.stage is Stage.COMMITTING:
            self._end(reload, None)

    def _order(
        self, reload: _Reload, workers: Iterable[WorkerProcess], order: Prepare | Commit
    ) -> None:
        reload.unanswered = set(workers)
        reload.until = time.monotonic() + ORDER_LIMIT_S
        for worker in reload.unanswered:
            worker.control.send(order)

    def _go_on_without(self, reload: _Reload, error: str) -> None:
        """Waits no longer for those that have not answered."""
        if reload.stage is Stage.COMMITTING:
            reload.unanswered.clear()
            self._go_on(reload)
            return
        if reload.stage is Stage.TRYING:
            for worker in reload.unanswered:
                worker.stop()  # it may serve the new release soon, as nobody else does
        self._abort(reload, error)

    def _abort(self, reload: _Reload, error: str) -> None:
        for worker in reload.workers:
            worker.control.send(Abort())
        self._end(reload, error)

    def _replace_the_late(self) -> None:
        """One after the other, so that somebody answers throughout."""
        for worker in self._late:
            if all(other.stays for other in self._workers if other is not worker):
                worker.stop()
                self._late.discard(worker)
                return

    def _switch(self, reload: _Reload) -> None:
        """Has the new release served from now on by those that take part and those that start."""
        assert reload.release is not None
        self.release = reload.release
        for worker in reload.workers:
            worker.release = reload.release
        for worker in self._workers:
            if worker.stays and worker.release is not self.release:
                worker.stop()  # it started meanwhile; its successor has the new one

    def _end(self, reload: _Reload, error: str | None) -> None:
        if error is not None:
            logger.error("reload: %s", error)
        _tell(reload.askers, error)
        self._reload = None
        self._begin()


def _tell(askers: Iterable[tuple[WorkerProcess, int]], error: str | None) -> None:
    for asker, number in askers:
        asker.control.send(Reloaded(number, error))
