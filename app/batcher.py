"""Dynamic batching: what arrives while the function works forms its next batch.

Knows nothing of models or HTTP: it batches the calls of any function that maps many items at once.
All state belongs to the event loop; only the function runs in a thread, its own.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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


class Batcher(Generic[Item, Result]):
    """Calls `function` on batches of items in order of arrival.

    An item that arrives at an idle batcher is computed at once. Where the function raises for a
    batch, it is called again for each of its items alone.

    Args:
        function: maps a batch of items to as many results, in order; called in a thread.
        max_batch: items in one call, at most.
        max_queue: items that may wait, not counting the batch that is being computed.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch: int,
        max_queue: int,
    ) -> None:
        self._function = function
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: OrderedDict[_Job[Item, Result], None] = OrderedDict()
        self._running: asyncio.Task[None] | None = None
        self._call_started: float | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher")
        self.observer: Observer | None = None
        self.healthy = True  # the latest call of the function succeeded
        self._closed = False

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
        if len(self._queue) + len(items) > self._max_queue:
            raise QueueFullError(f"{len(self._queue)} images are waiting, as many as may")
        loop = asyncio.get_running_loop()
        if deadline <= loop.time():
            raise DeadlineExceededError("the answer was not ready in time")
        jobs = [_Job[Item, Result](item, loop.create_future()) for item in items]
        self._queue.update(dict.fromkeys(jobs))
        self._start_batch()
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

    def busy_for(self) -> float:
        """Seconds that the current call of the function has taken, 0 between calls."""
        started = self._call_started
        return 0.0 if started is None else time.monotonic() - started

    async def close(self) -> None:
        """Takes no more items and returns when those taken have been computed."""
        self._closed = True
        while self._running is not None:
            await asyncio.wait([self._running])
        self._thread.shutdown(wait=False)

    def _start_batch(self) -> None:
        if self._running is not None:
            return
        batch: list[_Job[Item, Result]] = []
        while self._queue and len(batch) < self._max_batch:
            job, _ = self._queue.popitem(last=False)
            if not job.future.done():  # else its caller has gone
                batch.append(job)
        if batch:
            self._running = asyncio.get_running_loop().create_task(self._run(batch))

    async def _run(self, batch: list[_Job[Item, Result]]) -> None:
        started = time.monotonic()
        values: Sequence[Result | Exception]
        try:
            values = await self._call(batch)
        except Exception as error:
            if len(batch) == 1:
                values = [error]
            else:
                logger.warning(
                    "a batch of %d failed, each item is tried alone: %r", len(batch), error
                )
                batch = [job for job in batch if not job.future.done()]
                values = [await self._call_alone(job) for job in batch]
        ended = time.monotonic()
        for job, value in zip(batch, values, strict=True):
            if not job.future.done():
                job.future.set_result(Outcome(value, started - job.submitted, ended - started))
        self._running = None
        self._start_batch()
        if self.observer:
            self.observer.queued(len(self._queue))

    async def _call(self, batch: list[_Job[Item, Result]]) -> Sequence[Result]:
        self._call_started = time.monotonic()
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._function, [job.item for job in batch]
            )
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} items")
        except Exception:
            self.healthy = False
            raise
        finally:
            self._call_started = None
        self.healthy = True
        if self.observer:
            self.observer.batch(len(batch))
        return results

    async def _call_alone(self, job: _Job[Item, Result]) -> Result | Exception:
        try:
            return (await self._call([job]))[0]
        except Exception as error:
            return error
