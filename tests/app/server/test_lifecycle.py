"""Signals, reloads under load, and workers that die: nothing accepted is lost."""

import hashlib
import json
import os
import shutil
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from model.checkpoint.card import Card
from model.checkpoint.folder import Checkpoint, write_checkpoint
from tests.conftest import START_LIMIT_S, Server, encode, serving, wait_until
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
SEVEN = encode(IMAGES[0])
KEY = {"X-API-Key": "a-key"}
WITH_KEY = ("--api-keys", "a-key")


def write_version(checkpoint: Checkpoint, folder: Path, version: str) -> Card:
    """The checkpoint as another version of itself, in the place of what is in the folder."""
    files = {
        str(path.relative_to(checkpoint.folder)): path.read_bytes()
        for path in checkpoint.folder.rglob("*")
        if path.is_file() and path.name != "card.json"
    }
    return write_checkpoint(folder, checkpoint.card.model_copy(update={"version": version}), files)


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint folder of the test's own, version 7.0.0."""
    write_version(checkpoint, tmp_path / "weights", "7.0.0")
    return tmp_path / "weights"


@dataclass
class Load:
    """What clients that never stop asking saw."""

    answers: Counter[str] = field(default_factory=Counter)  # version -> right answers
    failures: list[str] = field(default_factory=list)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds; fails where it does not come to hold."""
        wait_until(condition, lambda: (self.answers, self.failures[:3]))

    def wait_for_more(self, answers: int = 20) -> None:
        """Until so many more answers have come."""
        before = self.answers.total()
        self.wait_for(lambda: self.answers.total() >= before + answers)


@contextmanager
def load(server: Server, clients: int = 4, headers: dict | None = None) -> Iterator[Load]:
    """Inside, clients ask and ask; each answer is compared with the truth."""
    seen = Load()
    stop = threading.Event()

    def ask(offset: int) -> None:
        at = offset
        with httpx.Client(base_url=server.url, timeout=START_LIMIT_S, headers=headers) as client:
            while not stop.is_set():
                at = (at + clients) % 50
                try:
                    response = client.post("/predict", files={"file": encode(IMAGES[at])})
                    answer = response.json()
                    assert response.status_code == 200, answer
                    assert answer["digit"] == LABELS[at]
                    seen.answers[answer["version"]] += 1
                except (AssertionError, httpx.HTTPError, ValueError) as error:
                    seen.failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        seen.wait_for_more()
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def reload(server: Server) -> httpx.Response:
    return httpx.post(f"{server.url}/admin/reload", headers=KEY, timeout=START_LIMIT_S)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_under_load_loses_nothing(checkpoint: Checkpoint, folder: Path, workers: int):
    flags = ("--weights", str(folder), "--workers", str(workers), *WITH_KEY)
    with serving(*flags) as server, load(server, headers=KEY) as seen:
        write_version(checkpoint, folder, "7.1.0")
        response = reload(server)
        assert response.status_code == 200, response.text
        assert response.json() == {
            "model": checkpoint.card.name,
            "version": "7.1.0",
            "previous": "7.0.0",
        }
        old = seen.answers["7.0.0"]
        seen.wait_for_more(40)
        assert seen.answers["7.0.0"] <= old + 4  # those in flight; each says who made it

        write_version(checkpoint, folder, "7.2.0")
        server.process.send_signal(signal.SIGHUP)
        seen.wait_for(lambda: seen.answers["7.2.0"] > 20)
    assert not seen.failures
    assert seen.answers.keys() == {"7.0.0", "7.1.0", "7.2.0"}


def corrupt(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not what the card says")


def mistake(folder: Path) -> None:
    """A graph that is no graph, under a digest that is right."""
    (folder / "model.onnx").write_bytes(b"no graph")
    card = json.loads((folder / "card.json").read_text())
    card["files"]["model.onnx"] = hashlib.sha256(b"no graph").hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


DAMAGES = {"deleted": shutil.rmtree, "corrupted": corrupt, "unusable": mistake}


def test_a_bad_checkpoint_does_not_take_over(checkpoint: Checkpoint, folder: Path):
    flags = ("--weights", str(folder), "--workers", "2", *WITH_KEY)
    with serving(*flags) as server, load(server, headers=KEY) as seen:
        for damage in DAMAGES.values():
            write_version(checkpoint, folder, "8.0.0")
            damage(folder)
            response = reload(server)
            assert response.status_code == 409, response.text
            assert response.json()["type"] == "/problems/reload-failed"
            assert str(folder) in response.json()["detail"]
            shutil.rmtree(folder, ignore_errors=True)
        seen.wait_for_more()
        write_version(checkpoint, folder, "8.1.0")
        assert reload(server).json()["version"] == "8.1.0"
    assert not seen.failures
    assert seen.answers["7.0.0"] > 0
    assert seen.answers["8.0.0"] == 0


def workers_of(server: Server) -> set[int]:
    """The processes that serve, by their command line."""
    children = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == server.process.pid and b"spawn_main" in command:
            children.add(int(stat.parent.name))
    return children


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to find the workers")
def test_a_killed_worker_is_replaced_and_the_others_go_on(folder: Path):
    with serving("--workers", "2", "--weights", str(folder)) as server, load(server) as seen:
        before = workers_of(server)
        assert len(before) == 2
        shutil.rmtree(folder)  # its successor has the checkpoint from the supervisor
        os.kill(min(before), signal.SIGKILL)
        seen.wait_for(lambda: len(workers_of(server) - before) == 1)
        seen.wait_for_more(100)
        # What the dead one had accepted is lost, and nothing else.
        assert len(seen.failures) <= 4
        assert all("RemoteProtocol" in f or "ReadError" in f for f in seen.failures), seen.failures
    assert server.process.returncode is not None


def test_workers_do_not_outlive_their_supervisor():
    with serving("--workers", "2") as server:
        orphans = workers_of(server)
        assert len(orphans) == 2
        server.process.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_it_now(workers: int):
    with serving("--drain-delay-s", "50", "--workers", str(workers)) as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            server.process.terminate()
            while httpx.get(f"{server.url}/health/ready").status_code == 200:
                pass
            server.process.terminate()
            assert server.process.wait(10) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_drain_under_load_loses_nothing(workers: int):
    with serving("--drain-delay-s", "1", "--workers", str(workers)) as server:
        with load(server) as seen:
            server.process.terminate()
            seen.wait_for(lambda: server.process.poll() is not None)
        assert server.process.returncode == 0
    # Once it refuses connections clients see that, and no request that was taken is dropped.
    assert all(failure.startswith("ConnectError") for failure in seen.failures), seen.failures


def test_a_worker_that_hangs_is_replaced():
    """Stopped, as by a debugger: it answers nobody, and the supervisor sees that."""
    impatient = (
        "import app.serve_command as m, app.server.supervisor as s; s.SILENCE_S = 2; m.main()"
    )
    with serving("--workers", "2", program=("-c", impatient)) as server:
        before = workers_of(server)
        os.kill(min(before), signal.SIGSTOP)
        wait_until(lambda: bool(workers_of(server) - before))
        assert min(before) not in workers_of(server)


def test_reload_reads_the_keys_anew(folder: Path, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("# to be rotated\nold-key\n")
    with serving("--weights", str(folder), "--api-keys-file", str(keys)) as server:

        def post(key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return httpx.post(
                f"{server.url}/admin/reload", headers=headers, timeout=START_LIMIT_S
            ).status_code

        assert [post("old-key"), post("new-key")] == [200, 401]
        keys.write_text("old-key\nnew-key\n")
        assert [post("old-key"), post("new-key")] == [200, 200]
        keys.write_text("new-key\n")
        assert [post("new-key"), post("old-key")] == [200, 401]
        keys.unlink()
        assert post("new-key") == 409
        assert post("new-key") == 409  # the keys of before are still good


def test_without_keys_nobody_reloads_over_http(client: httpx.Client):
    response = client.post("/admin/reload")
    assert response.status_code == 403
    assert response.json()["type"] == "/problems/reload-needs-keys"
