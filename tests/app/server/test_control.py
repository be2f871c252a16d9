"""Both ends of the pipe between supervisor and worker, over a real pipe and a real model."""

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest

from app.application import create_service
from app.gate.keys import Keys
from app.gate.reload import Release
from app.gate.service import Service
from app.inference.models import Model
from app.inference.predictor import load_predictor
from app.server.control import (
    Abort,
    Commit,
    Done,
    Heartbeat,
    Prepare,
    Reloaded,
    Report,
    SupervisorEnd,
    WorkerEnd,
)
from app.settings import Settings
from app.wire.problems import RequestError
from model.checkpoint.folder import Checkpoint
from tests.conftest import ROOT, START_LIMIT_S

pytestmark = pytest.mark.anyio


@dataclass
class Worker:
    """A worker's end, started in this process, and the supervisor's end of its pipe."""

    service: Service
    supervisor: SupervisorEnd
    folder: Path
    stopped: asyncio.Event
    reports: list[Report] = field(default_factory=list)

    @property
    def version(self) -> str:
        """Of the model that answers."""
        return self.service.predictor.card.version

    async def report(self) -> Report:
        """The next report that is no heartbeat."""
        with anyio.fail_after(START_LIMIT_S):
            while not self.reports:
                await asyncio.to_thread(self.supervisor.pipe.poll, 0.1)
                received = self.supervisor.received()
                self.reports += [r for r in received if not isinstance(r, Heartbeat)]
        return self.reports.pop(0)

    async def answer(self, order: Prepare | Commit) -> str | None:
        """The error, if any, with which an order is done."""
        self.supervisor.send(order)
        report = await self.report()
        assert isinstance(report, Done)
        assert report.reload == order.reload
        return report.error


@asynccontextmanager
async def working(folder: Path) -> AsyncIterator[Worker]:
    settings = Settings(weights=ROOT / Settings().weights)
    service = create_service(settings)
    service.models.put_in_place(Model(load_predictor(settings)))
    ours, theirs = multiprocessing.Pipe()
    worker = Worker(service, SupervisorEnd(ours), folder, asyncio.Event())
    WorkerEnd(service, theirs, folder).start(worker.stopped.set)
    try:
        yield worker
    finally:
        if not ours.closed:
            worker.supervisor.close()
        with anyio.fail_after(START_LIMIT_S):
            await worker.stopped.wait()
        await service.models.close()


def of_version(checkpoint: Checkpoint, version: str) -> Prepare:
    """The order to prepare the checkpoint as another version of itself."""
    card = checkpoint.card.model_copy(update={"version": version})
    return Prepare(1, Release(replace(checkpoint, card=card), Keys([])))


def batching_threads() -> int:
    """Each keeps a model in memory."""
    return sum(thread.name.startswith("batcher-") for thread in threading.enumerate())


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(START_LIMIT_S):
        while not condition():
            await anyio.sleep(0.01)


async def test_a_checkpoint_is_served_from_the_commit_on(checkpoint: Checkpoint, tmp_path: Path):
    async with working(tmp_path) as worker:
        assert await worker.answer(of_version(checkpoint, "7.1.0")) is None
        assert worker.version == checkpoint.card.version
        assert await worker.answer(Commit(1)) is None
        assert worker.version == "7.1.0"


async def test_an_aborted_checkpoint_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path):
    async with working(tmp_path) as worker:
        threads = batching_threads()
        assert await worker.answer(of_version(checkpoint, "7.1.0")) is None
        worker.supervisor.send(Abort())
        assert worker.version == checkpoint.card.version
        await until(lambda: batching_threads() == threads)
        assert await worker.answer(Commit(1)) is not None
        worker.supervisor.send(Abort())  # there need be nothing to drop
        assert await worker.answer(of_version(checkpoint, "7.2.0")) is None


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"onnx": b"no graph"}, "ONNX Runtime cannot load"),
        ({"self_check": b"no archive"}, "selfcheck.npz cannot be read"),
    ],
)
async def test_whatever_is_wrong_is_answered(
    damage: dict[str, bytes], told: str, checkpoint: Checkpoint, tmp_path: Path
):
    async with working(tmp_path) as worker:
        error = await worker.answer(Prepare(2, Release(replace(checkpoint, **damage), Keys([]))))
        assert error is not None
        assert told in error
        assert await worker.answer(of_version(checkpoint, "7.1.0")) is None  # it still listens
        assert await worker.answer(Commit(1)) is None
        assert worker.version == "7.1.0"


async def test_each_request_for_a_reload_gets_its_own_answer(tmp_path: Path):
    """One that comes later may be answered by a later reload."""
    async with working(tmp_path) as worker:
        requests = [asyncio.ensure_future(worker.service.reload()) for _ in range(2)]
        numbers = [(await worker.report()).request for _ in requests]
        worker.supervisor.send(Reloaded(numbers[0], "a worker says no"))
        with pytest.raises(RequestError, match="a worker says no"):
            await requests[0]
        assert not requests[1].done()
        worker.supervisor.send(Reloaded(numbers[1], None))
        await requests[1]


async def test_who_no_longer_waits_for_a_reload_harms_nobody(tmp_path: Path):
    async with working(tmp_path) as worker:
        request = asyncio.ensure_future(worker.service.reload())
        number = (await worker.report()).request
        request.cancel()
        worker.supervisor.send(Reloaded(number, None))
        request = asyncio.ensure_future(worker.service.reload())
        worker.supervisor.send(Reloaded((await worker.report()).request, None))
        await request


async def test_the_first_report_is_a_heartbeat_and_more_follow(tmp_path: Path):
    async with working(tmp_path) as worker:
        for _ in range(2):
            assert await asyncio.to_thread(worker.supervisor.pipe.poll, START_LIMIT_S)
            assert set(worker.supervisor.received()) == {Heartbeat()}


async def test_without_a_supervisor_the_worker_stops_and_tidies_up(tmp_path: Path):
    shared = tmp_path / "shared"
    shared.mkdir()
    async with working(shared) as worker:
        worker.supervisor.close()
        with anyio.fail_after(START_LIMIT_S):
            await worker.stopped.wait()
        assert not shared.exists()


def test_a_worker_that_reads_nothing_holds_up_nobody(checkpoint: Checkpoint):
    ours, theirs = multiprocessing.Pipe()
    supervisor = SupervisorEnd(ours)
    prepare = of_version(checkpoint, "7.1.0")
    orders = [prepare, Abort(), prepare, Commit(1)]
    for order in orders:  # more than a pipe holds
        supervisor.send(order)
    assert supervisor.received() == []
    assert [type(theirs.recv()) for _ in orders] == [type(order) for order in orders]
    supervisor.close()
