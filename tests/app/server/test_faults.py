"""Faults while clients ask: what a living worker had accepted is answered, and rightly."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.cores import usable_cores
from bench.overload import Asker
from model.checkpoint.folder import Checkpoint
from tests.app.api.test_bad_requests import assert_problem
from tests.app.server.test_lifecycle import load, workers_of
from tests.conftest import ROOT, START_LIMIT_S, Server, encode, serving, wait_until
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
SEVEN = encode(IMAGES[0])


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=START_LIMIT_S)


def memory_and_files(pid: int) -> tuple[float, int]:
    """Resident MB of a process, and its open files."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("sent", [SEVEN[:100], SEVEN], ids=["half", "all"])
def test_clients_that_vanish_cost_the_others_nothing(sent: bytes):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    with serving() as server, load(server) as seen:
        for _ in range(100):
            with connect(server) as connection:
                connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(SEVEN) + sent)
                # As a process that is killed: a reset, not an orderly end.
                linger = b"\1\0\0\0\0\0\0\0"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        seen.wait_for_more(40)
        assert httpx.get(f"{server.url}/health").status_code == 200
    assert not seen.failures


def test_slow_clients_cost_the_others_nothing():
    """Fifty that drip their heads, fifty their bodies."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    stop = threading.Event()
    with serving("--head-timeout-s", "2", "--body-timeout-s", "2") as server:
        memory, files = memory_and_files(server.process.pid)
        ended: list[bytes] = []

        def drip(start: bytes) -> None:
            while not stop.is_set():
                with connect(server) as connection:
                    try:
                        connection.sendall(start)
                        while not stop.wait(0.2):
                            connection.sendall(b"x")
                    except OSError:
                        ended.append(start)

        starts = [head, head + b"Content-Length: 1000\r\n\r\n"] * 50
        drips = [threading.Thread(target=drip, args=(start,)) for start in starts]
        for thread in drips:
            thread.start()
        with load(server) as seen:
            seen.wait_for(lambda: len(ended) >= len(starts))
            seen.wait_for_more(40)
        stop.set()
        for thread in drips:
            thread.join()
        assert not seen.failures
        wait_until(
            lambda: memory_and_files(server.process.pid)[1] <= files + 2,
            lambda: "connections are left over",
        )
        assert memory_and_files(server.process.pid)[0] < memory + 40


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_the_log_and_nothing_else():
    """Every line of the log fails to be written."""
    command = [sys.executable, "-m", "app", "--port", "0", "--drain-delay-s", "0"]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=full
        )
    try:
        assert process.stdout is not None
        docs = next(line for line in process.stdout if "/docs" in line).split()[-1]
        with load(Server(process, docs.removesuffix("/docs"), "")) as seen:
            seen.wait_for_more(40)
        assert not seen.failures
        process.terminate()
        assert process.wait(START_LIMIT_S) == 0
    finally:
        process.kill()
        process.communicate()


PROGRAM = """
import sys
from app.inference.engines.onnxruntime_engine import OnnxRuntimeEngine

compute = OnnxRuntimeEngine.compute

def fails_for_white(self, images, *rest):
    if (images == 255).all(axis=(1, 2, 3)).any():
        raise RuntimeError("the engine chokes on a white image")
    return compute(self, images, *rest)

OnnxRuntimeEngine.compute = fails_for_white
import app.serve_command as main
sys.exit(main.main())
"""


def test_an_engine_that_fails_for_one_image_answers_the_others_in_its_batch():
    """The real engine and server, with a fault built in for an image that is white all over."""
    white = {
        "inputs": [
            {
                "name": "image",
                "shape": [1, 28, 28],
                "datatype": "UINT8",
                "data": [255] * 784,
            }
        ]
    }
    with serving(program=("-c", PROGRAM)) as server, load(server, clients=6) as seen:
        infer = f"{server.url}/v2/models/perceiver-mnist/infer"
        statuses = Counter(
            httpx.post(infer, json=white, timeout=START_LIMIT_S).status_code for _ in range(30)
        )
        assert statuses == {500: 30}
        seen.wait_for_more()
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
    assert not seen.failures


def test_many_times_too_many_get_a_right_answer_or_a_refusal():
    """`bench.overload` measures how many; each single one is looked at."""
    with serving("--max-queue", "16", "--max-files", "16") as server:
        asker = Asker(urlsplit(server.url).port)
        asyncio.run(asker.wait_for_each(10, 1))
        before, files = memory_and_files(server.process.pid)
        seen = asyncio.run(asker.wait_for_each(200, 4))
        assert not seen.wrong
        assert seen.right > 20
        assert seen.refused > 20
        after, files_after = memory_and_files(server.process.pid)
        assert after < before + 40
        assert files_after < files + 250
        response = httpx.post(f"{server.url}/predict", files={"file": SEVEN})
        assert response.json()["digit"] == 7


@pytest.mark.parametrize("origins", ["", "https://a.example"])
def test_a_refusal_for_lack_of_room_is_complete(origins: str):
    """It comes before the body is read, and has all that other answers have."""
    room = ("--max-queue", "1", "--max-files", "1", "--max-batch", "1")
    with serving(*room, "--cors-origins", origins) as server:
        asker = Asker(urlsplit(server.url).port)
        flood = threading.Thread(target=lambda: asyncio.run(asker.wait_for_each(60, 4)))
        flood.start()
        refusals = []
        with httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client:
            while flood.is_alive():
                named = {"X-Request-ID": "mine", "Origin": "https://a.example"}
                response = client.post("/predict", files={"file": SEVEN}, headers=named)
                if response.status_code == 503:
                    refusals.append(response)
                else:
                    assert response.json()["digit"] == 7
        flood.join()
        assert refusals
        for response in refusals:
            assert_problem(response, 503, "queue-full", "/predict")
            assert response.headers["x-request-id"] == "mine"
            assert response.headers["retry-after"].isdigit()
            assert response.headers["server-timing"].startswith("total;dur=")
            assert response.headers["x-content-type-options"] == "nosniff"
            assert ("access-control-allow-origin" in response.headers) == bool(origins)
        counted = httpx.get(f"{server.url}/metrics").text
        line = next(
            line
            for line in counted.splitlines()
            if line.startswith('perceiver_http_requests_rejected_total{reason="queue-full"}')
        )
        assert float(line.split()[-1]) >= len(refusals)


def test_each_worker_computes_on_its_share_of_the_cores():
    """Two workers of all cores' threads each would run many times slower than one."""
    with serving("--workers", "2") as server:
        threads = httpx.get(f"{server.url}/metadata").json()["engine"]["threads"]
        assert threads == max(1, usable_cores() // 2)
        assert len(workers_of(server)) == 2


def test_a_checkpoint_deleted_while_it_serves_changes_nothing(
    checkpoint: Checkpoint, tmp_path: Path
):
    folder = tmp_path / "weights"
    shutil.copytree(checkpoint.folder, folder)
    with serving("--weights", str(folder)) as server, load(server) as seen:
        shutil.rmtree(folder)
        seen.wait_for_more(40)
    assert not seen.failures
