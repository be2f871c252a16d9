"""Dynamic batching: what arrives while the function works forms its next batch.

Knows nothing of models or HTTP: it batches the calls of any function that maps many items at once.
The function runs in threads of its own, which take their batches themselves: a busy event loop
doesn't keep them waiting. Answers and their figures belong to the event loop.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from app.inference.turns import Turns

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatcherError(Exception):
    """An item was not computed through no fault of its own."""


class QueueFullError(BatcherError):
    """As many items wait as may wait."""


class ClosedError(BatcherError):
    """The batcher takes no more items."""


class DeadlineExceededError(BatcherError):
    """The deadline passed before the answer was there."""


class Outcome(NamedTuple, Generic[Result]):
    """What became of one item."""

    value: Result | Exception  # what the function raised for this item, alone in its batch
    queue_s: float  # from being submitted to its batch's start
    run_s: float  # from there to the result


class Observer(Protocol):
    """Is told, on the event loop, what a batcher does."""

    def batch(self, size: int) -> None:
        """A batch of so many items was computed."""
        ...

    def queued(self, items: int) -> None:
        """So many items wait by now."""
        ...


@dataclass(eq=False, slots=True)
class _Job(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Outcome[Result]]
    submitted: float = field(default_factory=time.monotonic)


@dataclass(eq=False, slots=True)
class _Run(Generic[Item, Result]):
    """A batch that a thread computes, at once or item by item."""

    batch: list[_Job[Item, Result]]
    started: float = field(default_factory=time.monotonic)  # the first call of the function
    called: float = field(default_factory=time.monotonic)  # this call


class Batcher(Generic[Item, Result]):
    """Calls `function` on batches of items, with requests taking turns.

    An item that arrives while a thread is idle is computed at once. Where the function raises for a
    batch, it is called again for each of its items alone.

    Args:
        function: maps a batch of items to as many results, in order; called in threads.
        max_batch: items in one call, at most.
        max_queue: items that may wait, not counting the batches that are being computed.
        concurrency: threads, so calls at the same time.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch: int,
        max_queue: int,
        concurrency: int = 1,
    ) -> None:
        self._function = function
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._concurrency = concurrency
        self._lock = threading.Lock()  # of the queue, the runs and the count of sleepers
        self._queue = Turns[_Job[Item, Result]]()
        self._runs: set[_Run[Item, Result]] = set()
        self._sleepers = 0  # threads that wait to be woken
        self._rousing = False  # some will be, soon
        self._wake = queue.SimpleQueue[None]()
        self._idle = asyncio.Event()
        self._idle.set()
        self.observer: Observer | None = None
        self.healthy = True  # the latest call of the function succeeded
        self._closed = False
        self._ended = False
        for index in range(concurrency):
            threading.Thread(target=self._work, name=f"batcher-{index}", daemon=True).start()

    async def submit(self, items: Sequence[Item], deadline: float) -> list[Outcome[Result]]:
        """Waits for the results of all items; all are taken or none.

        A caller that is cancelled, or whose deadline passes, takes its waiting items along: they
        are not computed.

        Args:
            items: each takes a place of its own in the queue.
            deadline: on the event loop's clock.

        Raises:
            QueueFullError: there is not room for all the items.
            ClosedError: `close` was called.
            DeadlineExceededError: the results were not there by the deadline.
        """
        self.check_open()
        self.check_room(len(items))
        loop = asyncio.get_running_loop()
        if deadline <= loop.time():
            raise DeadlineExceededError("the answer was not ready in time")
        if not items:
            return []
        jobs: list[_Job[Item, Result]] = [_Job(item, loop.create_future()) for item in items]
        self._put(jobs)
        # Cheaper than asyncio.timeout_at.
        timer = loop.call_at(deadline, self._expire, jobs)
        try:
            return [await job.future for job in jobs]
        except BaseException:
            self._forget(jobs)
            raise
        finally:
            timer.cancel()

    def has_room(self, items: int) -> bool:
        """Whether so many more items may wait."""
        return len(self._queue) + items <= self._max_queue

    def check_open(self) -> None:
        """Raises `ClosedError` once `close` was called."""
        if self._closed:
            raise ClosedError("the service is shutting down")

    def check_room(self, items: int) -> None:
        """Raises `QueueFullError` where so many more items may not wait."""
        if not self.has_room(items):
            raise QueueFullError(f"{len(self._queue)} images are waiting, as many as may")

    def busy_for(self) -> float:
        """Seconds that the longest of the current calls has taken, 0 between calls."""
        now = time.monotonic()
        with self._lock:
            return max((now - run.called for run in self._runs), default=0.0)

    async def close(self) -> None:
        """Takes no more items and returns when those taken have been computed."""
        self._closed = True
        await self._idle.wait()
        self._ended = True
        for _ in range(self._concurrency):
            self._wake.put(None)

    def _put(self, jobs: list[_Job[Item, Result]]) -> None:
        self._idle.clear()
        with self._lock:
            self._queue.put(jobs)
        if self._sleepers and not self._rousing:
            # What is submitted before the loop comes to it goes into the same batch.
            self._rousing = True
            jobs[0].future.get_loop().call_soon(self._rouse)
        self._tell_queued()

    def _rouse(self) -> None:
        self._rousing = False
        with self._lock:
            waking = min(self._sleepers, -(-len(self._queue) // self._max_batch))
            self._sleepers -= waking
        for _ in range(waking):
            self._wake.put(None)

    @staticmethod
    def _expire(jobs: list[_Job[Item, Result]]) -> None:
        """Fails the future that is awaited."""
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(DeadlineExceededError("the answer was not ready in time"))
                return

    def _forget(self, jobs: list[_Job[Item, Result]]) -> None:
        for job in jobs:
            job.future.cancel()
        with self._lock:
            self._queue.discard(jobs)
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            idle = not self._runs and not self._queue
        if idle:
            self._idle.set()

    def _work(self) -> None:
        """Computes batch after batch, in a thread."""
        while (run := self._take()) is not None:
            outcome = self._call(run.batch)
            if isinstance(outcome, Exception) and len(run.batch) > 1:
                logger.warning(
                    "a batch of %d failed, each item is tried alone: %r", len(run.batch), outcome
                )
                self._report(run, [], outcome)
                for job in run.batch:
                    if not job.future.done():  # else its caller has gone
                        run.called = time.monotonic()
                        self._report(run, [job], self._call([job]))
                self._report(run, [], None, ended=True)
            else:
                self._report(run, run.batch, outcome, ended=True)

    def _take(self) -> _Run[Item, Result] | None:
        """The next batch, when there is one; None at the end."""
        while not self._ended:
            with self._lock:
                batch: list[_Job[Item, Result]] = []
                while len(batch) < self._max_batch and (job := self._queue.take()):
                    if not job.future.done():  # else its caller has gone
                        batch.append(job)
                if batch:
                    run = _Run(batch)
                    self._runs.add(run)
                    return run
                self._sleepers += 1
            self._wake.get()
        return None

    def _call(self, jobs: Sequence[_Job[Item, Result]]) -> Sequence[Result] | Exception:
        try:
            results = self._function([job.item for job in jobs])
            if len(results) != len(jobs):
                raise ValueError(f"{len(results)} results for {len(jobs)} items")
        except Exception as error:
            return error
        return results

    def _report(
        self,
        run: _Run[Item, Result],
        jobs: list[_Job[Item, Result]],
        outcome: Sequence[Result] | Exception | None,
        *,
        ended: bool = False,
    ) -> None:
        loop = run.batch[0].future.get_loop()
        seconds = time.monotonic() - run.started
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._finish, run, jobs, outcome, seconds, ended)

    def _finish(
        self,
        run: _Run[Item, Result],
        jobs: list[_Job[Item, Result]],
        outcome: Sequence[Result] | Exception | None,
        seconds: float,
        ended: bool,
    ) -> None:
        """Answers jobs with what the function gave or raised; on the event loop."""
        values: Sequence[Result | Exception] = ()
        if isinstance(outcome, Exception):
            self.healthy = False
            values = [outcome] * len(jobs)
        elif outcome is not None:
            self.healthy = True
            values = outcome
            if self.observer:
                self.observer.batch(len(jobs))
        for job, value in zip(jobs, values, strict=True):
            if not job.future.done():
                job.future.set_result(Outcome(value, run.started - job.submitted, seconds))
        if ended:
            with self._lock:
                self._runs.discard(run)
            self._settle()
            self._tell_queued()

    def _tell_queued(self) -> None:
        if self.observer:
            self.observer.queued(len(self._queue))
