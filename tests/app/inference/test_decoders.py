"""Decoder processes: what a file does to one harms nobody else."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.inference.batcher import ClosedError, DeadlineExceededError
from app.inference.budgets import Budgets, DecodersFullError
from app.inference.decoders import LARGE_PIXELS, Decoders
from app.settings import Settings
from model.modalities import Cost, InputTooCostlyError, UnreadableInputError
from tests.conftest import decoders_of

pytestmark = pytest.mark.anyio
LIMIT_S = 60.0
SMALL, LARGE, DEAR = Cost(1), Cost(LARGE_PIXELS), Cost(20_000_000)


def spin(seconds: float) -> float:
    """Uses so much CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


def wait_for(gate: str) -> str:
    """Waits until there is such a file."""
    while not os.path.exists(gate):
        time.sleep(0.01)  # an interval between questions, in a process of its own
    return gate


def take(size: int) -> int:
    return len(bytearray(size))


def crash(number: int) -> None:
    os.kill(os.getpid(), number)


def crash_once(gate: str) -> str:
    """Breaks its process at the first call alone."""
    if not os.path.exists(gate):
        Path(gate).touch()
        crash(signal.SIGSEGV)
    return gate


def pid(content: bytes) -> int:
    return os.getpid()


def soon() -> float:
    return asyncio.get_running_loop().time() + LIMIT_S


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    settings = Settings(
        max_decode_cpu_s=1, max_decode_bytes=2**27, request_timeout_s=60, workers=64
    )
    decoders = decoders_of(settings)
    yield decoders
    decoders.close()


async def test_a_process_is_kept(decoders: Decoders):
    (first,) = await decoders.run(pid, [b""], [SMALL], soon())
    (second,) = await decoders.run(pid, [b""], [SMALL], soon())
    assert first == second != os.getpid()


async def test_results_come_in_the_order_of_what_was_given(decoders: Decoders):
    given = [bytes(n) for n in range(20)]
    costs = [Cost(1 + n * 7919 % 20) for n in range(20)]
    assert await decoders.run(len, given, costs, soon()) == list(range(20))


async def test_too_much_cpu_time_is_told_and_ends_no_process(decoders: Decoders):
    (before,) = await decoders.run(pid, [b""], [SMALL], soon())
    (outcome,) = await decoders.run(spin, [60.0], [DEAR], soon())
    assert isinstance(outcome, InputTooCostlyError)
    # What was used before does not count.
    for _ in range(3):
        assert await decoders.run(spin, [0.6], [DEAR], soon()) == [0.6]
    assert await decoders.run(pid, [b""], [SMALL], soon()) == [before]


async def test_what_costs_more_than_its_header_foretells_is_ended_sooner(decoders: Decoders):
    (outcome,) = await decoders.run(spin, [0.8], [SMALL], soon())
    assert isinstance(outcome, InputTooCostlyError)


async def test_the_files_of_a_request_share_its_cpu_time(decoders: Decoders):
    outcomes = await decoders.run(spin, [0.2] * 20, [SMALL] * 20, soon())
    assert outcomes[0] == 0.2
    assert isinstance(outcomes[-1], InputTooCostlyError)
    assert outcomes.count(0.2) <= 7  # of one second, two at a time


async def test_a_codec_that_does_not_notice_is_killed_and_another_process_follows(
    decoders: Decoders,
):
    ends: list[str] = []
    decoders.on_end = ends.append
    (before,) = await decoders.run(pid, [b""], [SMALL], soon())
    (outcome,) = await decoders.run(sum, [range(10**12)], [DEAR], soon())  # one call of C
    assert isinstance(outcome, InputTooCostlyError)
    assert ends == ["cpu"]
    (after,) = await decoders.run(pid, [b""], [SMALL], soon())
    assert isinstance(after, int)
    assert after != before


async def test_too_much_memory_is_refused(decoders: Decoders):
    assert await decoders.run(take, [2**26], [SMALL], soon()) == [2**26]
    (outcome,) = await decoders.run(take, [2**28], [SMALL], soon())
    assert isinstance(outcome, InputTooCostlyError)


async def test_a_crash_is_the_fault_of_that_file(tmp_path: Path):
    decoders = decoders_of(Settings(max_decode_cpu_s=LIMIT_S))
    outcomes = await decoders.run(crash, [signal.SIGSEGV, 0], [DEAR, DEAR], soon())
    assert isinstance(outcomes[0], UnreadableInputError)
    assert outcomes[1] is None
    # One that breaks by chance is tried again.
    gate = str(tmp_path / "gate")
    assert await decoders.run(crash_once, [gate], [SMALL], soon()) == [gate]
    decoders.close()


async def test_large_files_leave_a_decoder_to_others(decoders: Decoders, tmp_path: Path):
    gate = tmp_path / "gate"
    large = asyncio.create_task(decoders.run(wait_for, [str(gate)] * 5, [LARGE] * 5, soon()))
    for _ in range(5):
        assert await decoders.run(len, [b"ab"], [SMALL], soon()) == [2]
    gate.touch()
    assert await large == [str(gate)] * 5


async def test_the_deadline_ends_the_wait_and_what_waits_is_not_decoded(
    decoders: Decoders, tmp_path: Path
):
    gate, never = tmp_path / "gate", tmp_path / "never"
    blocked = asyncio.create_task(decoders.run(wait_for, [str(gate)] * 2, [SMALL] * 2, soon()))
    await asyncio.sleep(0)
    now = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceededError):
        await decoders.run(Path.touch, [never], [SMALL], now + 0.05)
    gate.touch()
    await blocked
    assert await decoders.run(len, [b""], [SMALL], soon()) == [0]
    assert not never.exists()


async def test_pixels_that_wait_are_bounded_and_small_files_pass(tmp_path: Path):
    settings = Settings(max_request_pixels=30_000_000, max_pending_pixels=30_000_000)
    budget = Budgets(settings).pending_pixels
    decoders = Decoders(settings, budget)
    gate = str(tmp_path / "gate")
    waiting = asyncio.create_task(
        decoders.run(wait_for, [gate] * 3, [Cost(10_000_000)] * 3, soon())
    )
    await asyncio.sleep(0)
    with pytest.raises(DecodersFullError):
        await decoders.run(len, [b""], [Cost(2_000_000)], soon())
    assert await decoders.run(len, [b""], [SMALL], soon()) == [0]
    assert budget.taken == 30_000_000
    Path(gate).touch()
    await waiting
    assert budget.taken == 0
    decoders.close()


async def test_closing_waits_for_nobody(decoders: Decoders):
    running = asyncio.create_task(decoders.run(wait_for, ["/nowhere"], [SMALL], soon()))
    while not decoders._running:
        await asyncio.sleep(0)
    decoders.close()
    with pytest.raises(ClosedError):
        await asyncio.wait_for(running, LIMIT_S)
    with pytest.raises(ClosedError):
        await decoders.run(len, [b""], [SMALL], soon())
