"""Processes that decode files: what a file does to its decoder harms nobody else.

A decoder is killed when its file takes too long, and replaced when the next one comes. The
processes are AnyIO's (`anyio.to_process`), started when first needed; here is who gets one when.
"""

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pickle import PickleError
from typing import Any, Generic, NoReturn, TypeVar

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process

from app.inference.batcher import BatcherError, ClosedError, DeadlineExceededError
from app.inference.budgets import Budget
from app.inference.decoder_process import GRACE_S, within_limits
from app.inference.turns import Turns
from app.settings import Settings
from model.modalities import Cost, InputError, InputTooCostlyError, UnreadableInputError

Given = TypeVar("Given")
Made = TypeVar("Made")

# From so many pixels on, which take about 0.1 s, a file may not have the last free decoder.
LARGE_PIXELS = 3_000_000

# Seconds of CPU time that any file may take, and more for each pixel of its work: four times what
# the dearest were measured to take.
LEAST_CPU_S = 0.25
CPU_S_PER_PIXEL = 1.3e-7
# A process that is not gone so long after it was killed will not go.
STUCK_AFTER_S = 10.0

# Whatever killed one process may have killed more, which the system takes a moment to tell.
PAUSE_S = 0.1

logger = logging.getLogger(__name__)


class NoDecoderError(BatcherError):
    """No decoder process can be had."""


@dataclass(eq=False, slots=True)
class _Allowance:
    """CPU time that a request's files may take together.

    Attributes:
        left_s: seconds.
    """

    left_s: float


@dataclass(eq=False, slots=True)
class _Job(Generic[Made]):
    """A file that is decoded, or waits to be."""

    call: Callable[[], Made] | None  # None: it is done
    pixels: int
    allowance: _Allowance
    future: asyncio.Future[Made | Exception]
    started: float = math.inf  # on the event loop's clock

    @property
    def is_large(self) -> bool:
        """Whether others would wait for it."""
        return self.pixels >= LARGE_PIXELS

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU time that it may take: several times what its header foretells."""
        return min(self.allowance.left_s, LEAST_CPU_S + self.pixels * CPU_S_PER_PIXEL)

    def end(self, outcome: Made | Exception) -> None:
        """Tells who waits for it, if anybody does, and lets the file go."""
        self.call = None
        if not self.future.done():
            self.future.set_result(outcome)


class Decoders:
    """Gives files to decoder processes; requests take turns by what their files take.

    One decoder is kept free of large files. Belongs to the event loop.

    Args:
        settings: of the service.
        pending: pixels that all requests may have here.
    """

    def __init__(self, settings: Settings, pending: Budget) -> None:
        self._settings = settings
        self._pending = pending
        self._processes = max(2, settings.threads)
        self._limiter: CapacityLimiter | None = None
        self._turns = Turns[_Job[Any]]()
        self._running: dict[_Job[Any], asyncio.Task[None]] = {}
        self._closed = False
        self.healthy = True  # the latest process that was needed could be had
        self.on_end: Callable[[str], None] = lambda reason: None  # a decoder was killed or broke

    async def run(
        self,
        function: Callable[[Given], Made],
        given: Sequence[Given],
        costs: Sequence[Cost],
        deadline: float,
    ) -> list[Made | InputError]:
        """What the function makes of each of a request's files; an error where it can't.

        Args:
            function: to be called in a decoder process; it, its argument and its result are
                pickled.
            given: its arguments.
            costs: of each.
            deadline: on the event loop's clock.

        Raises:
            DecodersFullError: other requests have as many pixels here as may be.
            BatcherError: the deadline passed, `close` was called, or no process can be had.
        """
        if self._closed:
            raise ClosedError("the service is shutting down")
        made: list[Made | InputError] = []
        for outcome in await self._outcomes(function, given, costs, deadline):
            if isinstance(outcome, Exception) and not isinstance(outcome, InputError):
                try:
                    raise outcome
                finally:
                    del outcome  # or the error and this frame would keep each other, and the file
            made.append(outcome)
        return made

    async def _outcomes(
        self,
        function: Callable[[Given], Made],
        given: Sequence[Given],
        costs: Sequence[Cost],
        deadline: float,
    ) -> Iterator[Made | Exception]:
        loop = asyncio.get_running_loop()
        pixels = sum(cost.pixels for cost in costs)
        allowance = _Allowance(self._settings.max_decode_cpu_s)
        jobs = [
            _Job(partial(function, item), cost.pixels, allowance, loop.create_future())
            for item, cost in zip(given, costs, strict=True)
        ]
        try:
            self._pending.take(pixels, pixels)
            self._turns.put(jobs, lambda job: job.pixels)
            self._start_next()
            async with asyncio.timeout_at(deadline):
                return iter([await job.future for job in jobs])
        except TimeoutError:
            raise DeadlineExceededError("the image was not decoded in time") from None
        finally:
            for job in jobs:
                job.future.cancel()
            self._turns.discard(jobs)  # what is decoded already is soon done
            self._pending.give_back(pixels)

    async def can_decode(self, deadline: float) -> bool:
        """Whether a process can be had; where the latest could not, another is asked for."""
        if not self.healthy:
            await self.run(len, [b""], [Cost(1)], deadline)
        return self.healthy

    def stuck(self) -> bool:
        """Whether a decoder goes on that should have been killed long ago."""
        if not self._running:
            return False
        since = min(job.started for job in self._running)
        limit_s = 2 * self._settings.request_timeout_s + STUCK_AFTER_S  # a job is tried twice
        return asyncio.get_running_loop().time() - since > limit_s

    def close(self) -> None:
        """Ends all decoders, whatever they do; who waits for one gets `ClosedError`."""
        self._closed = True
        waiting = list(self._running)
        for task in self._running.values():
            task.cancel()
        while (job := self._turns.take()) is not None:
            waiting.append(job)
        for job in waiting:
            job.end(ClosedError("the service is shutting down"))

    def _start_next(self) -> None:
        while len(self._running) < self._processes:
            job = self._turns.take(self._may_start)
            if job is None:
                return
            job.started = asyncio.get_running_loop().time()
            # What the process is started with outlives the request: nothing of that may stay.
            decoding = asyncio.get_running_loop().create_task(
                self._decode(job), context=contextvars.Context()
            )
            self._running[job] = decoding

    def _may_start(self, job: _Job[Any]) -> bool:
        large = [other.pixels for other in self._running if other.is_large]
        if not job.is_large or not large:
            return True
        room = self._settings.max_decoding_pixels - sum(large)
        return len(large) < self._processes - 1 and job.pixels <= room

    async def _decode(self, job: _Job[Made]) -> None:
        try:
            outcome = await self._outcome(job)
        except Exception as error:
            job.end(error.with_traceback(None))
        else:
            job.end(outcome)
        finally:
            del self._running[job]
        self._start_next()

    async def _outcome(self, job: _Job[Made]) -> Made | InputError:
        """What a decoder makes of a file; tried again where one breaks, for it may be chance."""
        loop = asyncio.get_running_loop()
        memory = self._settings.max_decode_bytes
        if self._limiter is None:
            self._limiter = CapacityLimiter(self._processes)
        for _ in range(2):
            started, cpu_s = loop.time(), job.cpu_s
            if job.call is None or cpu_s <= 0:
                lack = f"{self._settings.max_decode_cpu_s:g} s of CPU time to decode; send fewer"
                return InputTooCostlyError(f"with this file the request takes more than {lack}")
            try:
                async with asyncio.timeout(self._settings.request_timeout_s):
                    result = await to_process.run_sync(
                        within_limits,
                        *(job.call, cpu_s, memory),
                        cancellable=True,
                        limiter=self._limiter,
                    )
            except TimeoutError:
                self.on_end("timeout")
                return InputTooCostlyError("the file takes too long to decode")
            except BrokenWorkerProcess as error:
                if error.args:  # it did not start
                    self._miss(error)
                seconds = loop.time() - started
                # How it ended nobody tells. It may have been chance, or somebody else's doing.
                self.on_end("cpu" if seconds >= cpu_s + GRACE_S else "crash")
                job.allowance.left_s -= min(cpu_s, seconds)
                await asyncio.sleep(PAUSE_S)
                if job.future.done():  # nobody waits any more
                    break
            except OSError as error:
                self._miss(error)
            except (MemoryError, PickleError):  # of what goes to the process, or comes back
                return InputTooCostlyError("the file takes more memory than its decoder has")
            else:
                self.healthy = True
                job.allowance.left_s -= result.cpu_s
                return result.value
        return UnreadableInputError("the file breaks its decoder")

    def _miss(self, error: Exception) -> NoReturn:
        self.healthy = False
        logger.error("no decoder process can be had: %s", error)
        raise NoDecoderError("no decoder can be started") from error
