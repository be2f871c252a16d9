"""`python -m app` from the outside: settings, failures to start, signals."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.server.worker import descriptors
from app.settings import Settings
from model.checkpoint.folder import Checkpoint
from tests.conftest import ROOT, START_LIMIT_S, Server, encode, serving
from tests.digits import load_digits

SEVEN = encode(load_digits()[0][0])


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *flags],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )


def assert_one_sentence(result: subprocess.CompletedProcess[str], code: int, hint: str) -> None:
    assert result.returncode == code, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert hint in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--port", "abc"], "port"),
        (["--port", "70000"], "port"),
        (["--prot", "80"], "--prot"),
        (["--device", "tpu"], "device"),
        (["--max-files", "9", "--max-queue", "8"], "max_queue"),
    ],
)
def test_a_bad_setting_is_told(flags: list[str], hint: str):
    assert_one_sentence(run(*flags), 2, hint)


def test_a_bad_variable_is_told():
    assert_one_sentence(run(PERCEIVER_WORKERS="none"), 2, "workers")


def test_help_tells_every_setting():
    result = run("--help")
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')} " in text
        assert f"[env: PERCEIVER_{name.upper()}]" in text
        assert f"(default: {field.default})" in text
        assert field.description
        assert field.description in text


def damaged(checkpoint: Checkpoint, folder: Path, damage: str) -> str:
    copy = folder / "damaged"
    if damage == "missing":
        return str(copy)
    shutil.copytree(checkpoint.folder, copy)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "truncated":
        del content[-1000:]
    else:
        content[-1] ^= 1
    weights.write_bytes(content)
    return str(copy)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "tampered"])
def test_a_bad_checkpoint_is_told(
    checkpoint: Checkpoint, tmp_path: Path, damage: str, workers: str
):
    folder = damaged(checkpoint, tmp_path, damage)
    assert_one_sentence(run("--weights", folder, "--workers", workers), 1, folder)


@pytest.mark.parametrize(
    "flags",
    [["--device", "cuda:99"], ["--engine", "onnxruntime", "--device", "cuda", "--workers", "2"]],
)
def test_an_absent_device_is_told(flags: list[str]):
    assert_one_sentence(run(*flags), 1, "CUDA")


def test_a_port_in_use_is_told(server: Server):
    port = urlsplit(server.url).port
    assert_one_sentence(run("--port", str(port)), 1, str(port))


def test_torch_engine_serves():
    with serving("--engine", "torch", "--device", "cpu") as server:
        assert httpx.get(f"{server.url}/metadata").json()["engine"]["name"] == "torch"
        answer = httpx.post(f"{server.url}/predict", files={"file": SEVEN}).json()
        assert answer["digit"] == 7


def test_two_workers_serve_and_stop():
    with serving("--workers", "2") as server:
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(
                lambda _: httpx.post(f"{server.url}/predict", files={"file": SEVEN}), range(16)
            )
        assert {answer.json()["digit"] for answer in answers} == {7}
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_well(number: signal.Signals):
    with serving() as server:
        server.process.send_signal(number)
        assert server.process.wait(START_LIMIT_S) == 0


def test_termination_ends_readiness_first_and_answers_what_is_in_flight():
    with serving("--drain-delay-s", "2") as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                b"Content-Length: %d\r\n\r\n" % len(SEVEN)
            )
            server.process.terminate()
            statuses = readiness_until_refused(server)
            assert statuses[-1] == 503
            assert statuses == sorted(statuses)
            connection.sendall(SEVEN)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(START_LIMIT_S) == 0


def readiness_until_refused(server: Server) -> list[int]:
    """Statuses of /health/ready until the server takes no more connections."""
    statuses = []
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        try:
            statuses.append(httpx.get(f"{server.url}/health/ready").status_code)
        except httpx.TransportError:
            return statuses
    raise AssertionError("it went on accepting connections")


def test_no_worker_makes_the_shared_socket_block():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        other_workers = socket.socket(fileno=os.dup(bound.fileno()))
        other_workers.setblocking(False)
        made = descriptors(socket.socket(fileno=os.dup(bound.fileno())))
        assert len(made) > 1
        for one in [*made, other_workers]:
            assert not os.get_blocking(one.fileno())
            one.close()
