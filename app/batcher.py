"""Dynamic batching: what arrives while the function works forms its next batch.

Knows nothing of models or HTTP: it batches the calls of any function that maps many items at once.
All state belongs to the event loop; only the function runs in threads, its own.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

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


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
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
    """A call of the function, and those that follow it in its thread."""

    batch: list[_Job[Item, Result]]
    started: float = field(default_factory=time.monotonic)  # the first of these calls
    called: float = field(default_factory=time.monotonic)  # this call
    retries: list[_Job[Item, Result]] = field(default_factory=list)  # each in a call of its own


class Batcher(Generic[Item, Result]):
    """Calls `function` on batches of items in order of arrival.

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
        self._queue: OrderedDict[_Job[Item, Result], None] = OrderedDict()
        self._runs: set[_Run[Item, Result]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.observer: Observer | None = None
        self.healthy = True  # the latest call of the function succeeded
        self._closed = False
        # Not an executor: its futures would cost more than all else in here.
        self._calls: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, _Run[Item, Result]] | None]
        self._calls = queue.SimpleQueue()
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
        jobs = [_Job[Item, Result](item, loop.create_future()) for item in items]
        self._queue.update(dict.fromkeys(jobs))
        self._start_batches()
        if self.observer:
            self.observer.queued(len(self._queue))
        try:
            async with asyncio.timeout_at(deadline):
                return [await job.future for job in jobs]
        except TimeoutError:
            raise DeadlineExceededError("the answer was not ready in time") from None
        finally:
            for job in jobs:
                job.future.cancel()
                self._queue.pop(job, None)

    def check_open(self) -> None:
        """Raises `ClosedError` once `close` was called."""
        if self._closed:
            raise ClosedError("the service is shutting down")

    def check_room(self, items: int) -> None:
        """Raises `QueueFullError` where so many more items may not wait."""
        if len(self._queue) + items > self._max_queue:
            raise QueueFullError(f"{len(self._queue)} images are waiting, as many as may")

    def busy_for(self) -> float:
        """Seconds that the longest of the current calls has taken, 0 between calls."""
        now = time.monotonic()
        return max((now - run.called for run in self._runs), default=0.0)

    async def close(self) -> None:
        """Takes no more items and returns when those taken have been computed."""
        self._closed = True
        await self._idle.wait()
        for _ in range(self._concurrency):
            self._calls.put(None)

    def _start_batches(self) -> None:
        while self._queue and len(self._runs) < self._concurrency:
            batch: list[_Job[Item, Result]] = []
            while self._queue and len(batch) < self._max_batch:
                job, _ = self._queue.popitem(last=False)
                if not job.future.done():  # else its caller has gone
                    batch.append(job)
            if batch:
                self._start(_Run(batch))

    def _start(self, run: _Run[Item, Result]) -> None:
        self._idle.clear()
        self._runs.add(run)
        self._calls.put((asyncio.get_running_loop(), run))

    def _work(self) -> None:
        """Calls the function in a thread, until told None."""
        while (call := self._calls.get()) is not None:
            loop, run = call
            outcome: Sequence[Result] | Exception
            try:
                outcome = self._function([job.item for job in run.batch])
                if len(outcome) != len(run.batch):
                    raise ValueError(f"{len(outcome)} results for {len(run.batch)} items")
            except Exception as error:
                outcome = error
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._finish, run, outcome)

    def _finish(self, run: _Run[Item, Result], outcome: Sequence[Result] | Exception) -> None:
        self._runs.remove(run)
        self.healthy = not isinstance(outcome, Exception)
        if not isinstance(outcome, Exception):
            if self.observer:
                self.observer.batch(len(run.batch))
            self._answer(run, outcome)
        elif len(run.batch) == 1:
            self._answer(run, [outcome])
        else:
            logger.warning(
                "a batch of %d failed, each item is tried alone: %r", len(run.batch), outcome
            )
            run.retries = run.batch
        retries = [job for job in run.retries if not job.future.done()]
        if retries:
            self._start(_Run(retries[:1], run.started, retries=retries[1:]))
        self._start_batches()
        if not self._runs:
            self._idle.set()
        if self.observer:
            self.observer.queued(len(self._queue))

    @staticmethod
    def _answer(run: _Run[Item, Result], values: Sequence[Result | Exception]) -> None:
        ended = time.monotonic()
        for job, value in zip(run.batch, values, strict=True):
            if not job.future.done():
                queued = run.started - job.submitted
                job.future.set_result(Outcome(value, queued, ended - run.started))
