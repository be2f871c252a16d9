"""Reloads that go wrong in every way, under load: what served before still does, at once told."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.server.supervisor import SILENCE_S
from model.checkpoint.folder import Checkpoint
from tests.app.server.bad_checkpoints import BAD, endless_graph, files
from tests.app.server.test_faults import memory_and_files
from tests.app.server.test_lifecycle import KEY, SEVEN, WITH_KEY, load, reload, workers_of
from tests.app.server.test_lifecycle import write_version as write
from tests.conftest import START_LIMIT_S, Server, serving, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")

AT_ONCE_S = 15.0  # on a machine that does much else
IMPATIENT = (
    "import app.inference.proof as p; p.LIMIT_S = 6; import app.serve_command as m; m.main()"
)


@pytest.fixture(params=[1, 2], scope="module", ids=["alone", "two workers"])
def served(
    request: pytest.FixtureRequest,
    checkpoint: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, Path]]:
    """A server with its checkpoint folder, whose version is 7.0.0."""
    folder = tmp_path_factory.mktemp("served") / "weights"
    write(checkpoint, folder, "7.0.0")
    flags = ("--weights", str(folder), "--workers", str(request.param), *WITH_KEY)
    with serving(*flags, program=("-c", IMPATIENT)) as server:
        yield server, folder


def provers_of(server: Server) -> list[int]:
    """The processes that prove a checkpoint for it."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if parent == server.process.pid and b"app.inference.proof" in command:
            children.append(int(stat.parent.name))
    return children


def post(server: Server, path: str) -> httpx.Response:
    return httpx.post(server.url + path, files={"file": SEVEN}, headers=KEY, timeout=START_LIMIT_S)


def assert_serves(server: Server, version: str) -> None:
    """Everything, by every worker."""
    for _ in range(8):
        assert post(server, "/predict").json()["version"] == version
    assert post(server, "/explain").status_code == 200
    assert post(server, "/read").status_code == 200


@pytest.mark.parametrize("fault", BAD)
def test_a_checkpoint_with_a_fault_is_refused(served: tuple[Server, Path], fault: str):
    server, folder = served
    make, hint = BAD[fault]
    make(folder)
    workers = workers_of(server)
    with load(server, clients=2, headers=KEY) as seen:
        started = time.monotonic()
        response = reload(server)
        assert response.status_code == 409, response.text
        assert hint in response.json()["detail"]
        assert time.monotonic() - started < AT_ONCE_S
        seen.wait_for_more()
    assert not seen.failures
    assert seen.answers.keys() == {"7.0.0"}
    assert workers_of(server) == workers
    assert_serves(server, "7.0.0")


@pytest.mark.parametrize("number", [None, signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_prover_that_hangs_or_dies_harms_nobody(
    served: tuple[Server, Path], number: signal.Signals | None
):
    server, folder = served
    files(model_onnx=endless_graph)(folder)
    with load(server, clients=2, headers=KEY) as seen, ThreadPoolExecutor() as threads:
        response = threads.submit(reload, server)
        wait_until(lambda: bool(provers_of(server)))
        if number is not None:
            os.kill(provers_of(server)[0], number)
        answer = response.result()
        assert answer.status_code == 409
        died = number in (signal.SIGKILL, signal.SIGSEGV)
        assert (number.name if died else "within 6 s") in answer.json()["detail"]
        seen.wait_for_more()
    assert not provers_of(server)
    assert not seen.failures
    assert seen.answers.keys() == {"7.0.0"}


def test_a_signal_to_stop_waits_for_no_prover(checkpoint: Checkpoint, tmp_path: Path):
    for workers in ("1", "2"):
        folder = tmp_path / workers
        write(checkpoint, folder, "7.0.0")
        with serving("--weights", str(folder), "--workers", workers) as server:
            files(model_onnx=endless_graph)(folder)
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: bool(provers_of(server)))
            provers = provers_of(server)
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < AT_ONCE_S
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in provers))  # noqa: B023


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGCONT, None])
def test_a_worker_that_hangs_or_dies_keeps_all_from_a_reload(
    checkpoint: Checkpoint, tmp_path: Path, end: signal.Signals | None
):
    folder = tmp_path / "weights"
    write(checkpoint, folder, "7.0.0")
    with serving("--weights", str(folder), "--workers", "2", *WITH_KEY) as server:
        hung = min(workers_of(server))
        others = workers_of(server) - {hung}
        write(checkpoint, folder, "7.1.0")
        os.kill(hung, signal.SIGSTOP)
        try:
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: bool(provers_of(server)))
            wait_until(lambda: not provers_of(server))  # the workers' turn
            if end is not None:
                os.kill(hung, end)
            # SIGCONT comes early enough for the reload to go through; else nothing changes.
            expected = "7.1.0" if end == signal.SIGCONT else "7.0.0"
            if end == signal.SIGCONT:
                wait_until(lambda: post(server, "/predict").json()["version"] == expected)
            else:
                wait_until(lambda: hung not in workers_of(server))
                wait_until(lambda: len(workers_of(server)) == 2)
            assert others <= workers_of(server)
            if end == signal.SIGKILL:
                # It may be dead before its turn came: then it has no say, and the others go on.
                wait_until(lambda: len(versions_of(server)) == 1)
            else:
                assert_serves(server, expected)
            write(checkpoint, folder, "7.2.0")
            wait_until(lambda: reload(server).status_code == 200)
            assert_serves(server, "7.2.0")
        finally:
            for pid in workers_of(server):
                os.kill(pid, signal.SIGCONT)
    assert SILENCE_S < START_LIMIT_S


def versions_of(server: Server) -> set[str]:
    """What some answers in a row come from."""
    return {post(server, "/predict").json()["version"] for _ in range(8)}


@pytest.mark.parametrize("workers", [1, 2])
def test_many_reloads_at_once_are_two(checkpoint: Checkpoint, tmp_path: Path, workers: int):
    folder = tmp_path / "weights"
    write(checkpoint, folder, "7.0.0")
    flags = ("--weights", str(folder), "--workers", str(workers), *WITH_KEY)
    with serving(*flags) as server:
        assert reload(server).status_code == 200
        pid = min(workers_of(server), default=server.process.pid)
        before, _ = memory_and_files(pid)
        provers = set[int]()
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.01):
                provers.update(provers_of(server))

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(60) as threads, load(server, clients=2, headers=KEY) as seen:
            first = threads.submit(reload, server)
            wait_until(lambda: bool(provers))
            write(checkpoint, folder, "7.1.0")  # after the first may have read the folder
            answers = list(threads.map(lambda _: reload(server), range(59)))
            assert first.result().status_code == 200
        over.set()
        watcher.join()
        assert {answer.json()["version"] for answer in answers} == {"7.1.0"}
        assert len(provers) == 2
        assert not seen.failures
        wait_until(lambda: memory_and_files(pid)[0] < before + 60)


def test_models_of_the_past_do_not_pile_up(checkpoint: Checkpoint, tmp_path: Path):
    folder = tmp_path / "weights"
    write(checkpoint, folder, "7.0.0")
    with serving("--weights", str(folder), *WITH_KEY) as server:
        for _ in range(3):
            assert reload(server).status_code == 200
        before, open_before = memory_and_files(server.process.pid)
        for _ in range(10):
            assert reload(server).status_code == 200
        wait_until(  # the last one before is retired by then
            lambda: memory_and_files(server.process.pid)[0] < before + 40,
            lambda: (before, memory_and_files(server.process.pid)),
        )
        assert memory_and_files(server.process.pid)[1] <= open_before + 2


def test_a_start_with_explanations_that_are_none_says_so(tmp_path: Path):
    for fault in ("explain: garbage", "weights: zeros", "explain: other graph"):
        folder = tmp_path / "weights"
        BAD[fault][0](folder)
        with serving("--weights", str(folder)) as server:
            assert post(server, "/predict").json()["digit"] == 7
            assert httpx.get(f"{server.url}/health/ready").status_code == 200
            refusal = post(server, "/explain")
            assert refusal.status_code == 501
            assert refusal.json()["type"] == "/problems/no-explanations"
            assert "explain" in refusal.json()["detail"]
            assert post(server, "/predict").json()["digit"] == 7
