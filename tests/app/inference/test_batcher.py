"""The batcher alone, on a real event loop, with plain functions in the model's place."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from app.inference.batcher import Batcher, ClosedError, DeadlineExceededError, QueueFullError

pytestmark = pytest.mark.anyio
LIMIT_S = 10.0


class Gate:
    """A function to batch that doubles its items, records its batches, and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.open.wait(LIMIT_S)
        if -1 in items:
            raise ValueError("no -1")
        return [2 * item for item in items]


def deadline(seconds: float = LIMIT_S) -> float:
    return asyncio.get_running_loop().time() + seconds


@asynccontextmanager
async def held_up(gate: Gate, batcher: Batcher[int, int]) -> AsyncIterator[asyncio.Task[object]]:
    """Inside, the batcher is busy with the item 0."""
    gate.open.clear()
    first = asyncio.create_task(batcher.submit([0], deadline()))
    await asyncio.to_thread(gate.entered.wait, LIMIT_S)
    try:
        yield first
    finally:
        gate.open.set()
        await first


async def submitted(batcher: Batcher[int, int], *items: int) -> asyncio.Task[list[object]]:
    """A task whose items are in the queue."""

    async def values() -> list[object]:
        return [outcome.value for outcome in await batcher.submit(items, deadline())]

    task = asyncio.create_task(values())
    await asyncio.sleep(0)
    return task


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def batcher(gate: Gate) -> AsyncIterator[Batcher[int, int]]:
    batcher = Batcher(gate, max_batch=4, max_queue=6)
    yield batcher
    await batcher.close()


async def test_idle_it_computes_at_once_and_alone(gate, batcher):
    assert await (await submitted(batcher, 3)) == [6]
    assert gate.batches == [[3]]
    assert await batcher.submit([], deadline()) == []


async def test_what_arrives_meanwhile_is_batched_in_order(gate, batcher):
    async with held_up(gate, batcher):
        tasks = [await submitted(batcher, item) for item in range(1, 7)]
    assert [await task for task in tasks] == [[2], [4], [6], [8], [10], [12]]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_request_of_several_items_takes_as_many_places(gate, batcher):
    async with held_up(gate, batcher):
        five = await submitted(batcher, 1, 2, 3, 4, 5)
        with pytest.raises(QueueFullError):
            await batcher.submit([6, 7], deadline())
        six = await submitted(batcher, 6)
        with pytest.raises(QueueFullError):
            await batcher.submit([7], deadline())
    assert await five == [2, 4, 6, 8, 10]
    assert await six == [12]
    assert gate.batches == [[0], [1, 6, 2, 3], [4, 5]]  # they take turns


async def test_a_request_of_no_items_is_answered_and_harms_nobody(gate, batcher):
    assert await batcher.submit([], deadline()) == []
    (outcome,) = await batcher.submit([1], deadline())
    assert outcome.value == 2
    assert gate.batches == [[1]]


async def test_times_are_told(gate, batcher):
    clock = asyncio.get_running_loop().time
    begun = clock()
    async with held_up(gate, batcher) as first:
        later = asyncio.create_task(batcher.submit([1], deadline()))
        await asyncio.sleep(0)
        waiting = clock()
        while clock() - waiting < 0.05:
            await asyncio.sleep(0.01)
        assert batcher.busy_for() >= 0.05
    (outcome,) = await first
    assert outcome.run_s >= 0.05
    assert outcome.queue_s + outcome.run_s <= clock() - begun
    (outcome,) = await later
    assert outcome.queue_s >= 0.05
    assert outcome.queue_s + outcome.run_s <= clock() - begun
    assert batcher.busy_for() == 0


async def test_the_cancelled_are_not_computed_and_leave_their_places(gate, batcher):
    async with held_up(gate, batcher):
        stays = await submitted(batcher, 1)
        goes = await submitted(batcher, 2, 3, 4, 5, 6)
        goes.cancel()
        await asyncio.wait([goes])
        more = await submitted(batcher, 7, 8)
    assert await stays == [2]
    assert await more == [14, 16]
    assert gate.batches == [[0], [1, 7, 8]]


async def test_cancelled_while_computed_harms_nobody(gate, batcher):
    gate.open.clear()
    goes = await submitted(batcher, 1)
    await asyncio.to_thread(gate.entered.wait, LIMIT_S)
    stays = await submitted(batcher, 2)
    goes.cancel()
    await asyncio.wait([goes])
    gate.open.set()
    assert await stays == [4]
    assert gate.batches == [[1], [2]]


async def test_past_the_deadline_it_is_not_computed(gate, batcher):
    async with held_up(gate, batcher):
        with pytest.raises(DeadlineExceededError):
            await batcher.submit([1], deadline(0.02))
        with pytest.raises(DeadlineExceededError):
            await batcher.submit([2], deadline(-1))
        after = await submitted(batcher, 3)
    assert await after == [6]
    assert gate.batches == [[0], [3]]


async def test_a_failing_item_fails_alone(gate, batcher):
    async with held_up(gate, batcher):
        tasks = [await submitted(batcher, item) for item in (1, -1, 2)]
    (one,), (failed,), (two,) = [await task for task in tasks]
    assert (one, two) == (2, 4)
    assert isinstance(failed, ValueError)
    assert gate.batches == [[0], [1, -1, 2], [1], [-1], [2]]
    assert batcher.healthy


async def test_who_leaves_a_failing_batch_harms_nobody(gate, batcher):
    gate.open.clear()
    goes = await submitted(batcher, -1, 1)
    await asyncio.to_thread(gate.entered.wait, LIMIT_S)
    goes.cancel()
    await asyncio.wait([goes])
    gate.open.set()
    assert await (await submitted(batcher, 2)) == [4]
    assert gate.batches == [[-1, 1], [2]]


async def test_health_follows_the_latest_call(gate, batcher):
    assert isinstance((await (await submitted(batcher, -1)))[0], ValueError)
    assert not batcher.healthy
    assert await (await submitted(batcher, 1)) == [2]
    assert batcher.healthy


async def test_results_that_are_too_few_fail_their_items():
    batcher: Batcher[int, int] = Batcher(lambda items: [], max_batch=4, max_queue=4)
    outcomes = await batcher.submit([1, 2], deadline())
    assert all(isinstance(outcome.value, ValueError) for outcome in outcomes)


async def test_closing_answers_what_was_taken_and_takes_no_more(gate, batcher):
    async with held_up(gate, batcher):
        waiting = await submitted(batcher, 1, 2, 3, 4, 5)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(ClosedError):
            await batcher.submit([6], deadline())
    await closing
    assert waiting.done()
    assert await waiting == [2, 4, 6, 8, 10]


async def test_many_callers_get_each_their_own(gate):
    batcher = Batcher(gate, max_batch=16, max_queue=1000)
    answers = await asyncio.gather(*(batcher.submit([i, -i - 2], deadline()) for i in range(300)))
    assert [[o.value for o in a] for a in answers] == [[2 * i, 2 * (-i - 2)] for i in range(300)]
    assert max(map(len, gate.batches)) == 16


async def test_several_threads_compute_at_the_same_time(gate):
    batcher = Batcher(gate, max_batch=2, max_queue=6, concurrency=2)
    gate.open.clear()
    tasks = []
    for item in range(5):
        tasks.append(await submitted(batcher, item))
        while len(gate.batches) < min(item + 1, 2):
            await asyncio.sleep(0)
    assert batcher.busy_for() > 0
    gate.open.set()
    assert [await task for task in tasks] == [[0], [2], [4], [6], [8]]
    assert sorted(gate.batches) == [[0], [1], [2, 3], [4]]
    await batcher.close()
