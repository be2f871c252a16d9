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
from app.settings import Settings, unknown_variables
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
        (["--cors-origins", "example.com"], "write https://example.com"),
        (["--cors-origins", "localhost:3000"], "write https://localhost:3000"),
        (["--cors-origins", "https://example.com/"], "write https://example.com"),
        (["--cors-origins", "*, https://example.com/page?a=b"], "write https://example.com"),
        (["--cors-origins", "HTTPS://Example.com:443"], "write https://example.com"),
        (["--cors-origins", "https://*.example.com"], "no web origin"),
        (["--cors-origins", "https://"], "no web origin"),
        (["--cors-origins", "http://example.com:99999"], "no web origin"),
    ],
)
def test_a_bad_setting_is_told(flags: list[str], hint: str):
    assert_one_sentence(run(*flags), 2, hint)


def test_a_bad_variable_is_told():
    assert_one_sentence(run(PERCEIVER_WORKERS="none"), 2, "workers")


def test_origins_as_browsers_send_them_are_taken():
    for origins in ("", "*", "null", "https://a.example, http://localhost:3000", "http://[::1]:8"):
        assert Settings(cors_origins=origins).cors_origins == origins


def test_a_variable_that_sets_nothing_is_told():
    environment = {
        "PERCEIVER_PROT": "9",
        "PERCEIVER_API_KEY": "secret",
        "PERCEIVER_QUITE_ELSE": "x",
        "PERCEIVER_MAX_BATCH": "16",
        "OTHER_PROT": "9",
    }
    told = dict(zip(list(environment)[:3], unknown_variables(environment), strict=True))
    assert told["PERCEIVER_PROT"].endswith("did you mean PERCEIVER_PORT?")
    assert told["PERCEIVER_API_KEY"].endswith("did you mean PERCEIVER_API_KEYS?")
    assert "mean" not in told["PERCEIVER_QUITE_ELSE"]
    assert "secret" not in str(told)
    result = run("--weights", "nowhere", PERCEIVER_PROT="9")
    assert "PERCEIVER_PORT" in result.stderr


def test_a_service_of_kubernetes_named_perceiver_is_no_setting():
    """Each container of its namespace gets such variables."""
    environment = {
        "PERCEIVER_PORT": "tcp://10.0.0.1:80",
        "PERCEIVER_SERVICE_HOST": "10.0.0.1",
        "PERCEIVER_SERVICE_PORT_HTTP": "80",
        "PERCEIVER_PORT_80_TCP_ADDR": "10.0.0.1",
        "PERCEIVER_SERVE_PORT": "tcp://10.0.0.2:80",
    }
    (warning,) = unknown_variables(environment)
    assert "Kubernetes" in warning
    result = run("--weights", "nowhere", **environment)
    assert result.returncode == 1  # for the want of weights alone
    assert "there is no checkpoint folder nowhere" in result.stderr


def test_an_engine_that_is_not_installed_says_what_installs_it():
    hide = "import importlib.util as u; f = u.find_spec; "
    hide += "u.find_spec = lambda name, *rest: None if name == 'torch' else f(name, *rest); "
    hide += "import app.serve_command as m, sys; sys.exit(m.main())"
    for flags in (["--engine", "torch"], ["--device", "cuda"]):
        result = subprocess.run(
            [sys.executable, "-c", hide, *flags],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=START_LIMIT_S,
            check=False,
        )
        assert_one_sentence(result, 1, "pip install '.[torch]'")


@pytest.mark.parametrize("command", ["-m app", "-m app.cli serve"])
def test_the_shipped_weights_are_found_from_any_folder(tmp_path: Path, command: str):
    """A folder that somebody names is where they say."""
    program = "from app.cli import main; import sys; sys.exit(main())"
    words = ["-m", "app"] if command == "-m app" else ["-c", program, "serve"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *words, "--port", "0", "--drain-delay-s", "0"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any("stops it" in line for line in process.stdout)
    process.terminate()
    assert process.wait(START_LIMIT_S) == 0
    process.stdout.close()
    result = subprocess.run(
        [sys.executable, *words, "--weights", "weights/perceiver-mnist"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )
    assert_one_sentence(result, 1, "there is no checkpoint folder weights/perceiver-mnist")


def test_predict_finds_the_shipped_weights_from_any_folder(tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", "predict", "-"],
        input=SEVEN,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=START_LIMIT_S,
        check=True,
    )
    assert b'"label": "7"' in result.stdout


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-", ">/dev/full"])
def test_it_serves_without_standard_streams(closed: str, workers: int):
    """What is meant for them lands in no socket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = f"--port {port} --drain-delay-s 0 --workers {workers} --api-keys a-key"
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$0" -m app {flags} {closed}', sys.executable],
        cwd=ROOT,
        stdout=subprocess.PIPE if "1>" not in closed else None,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + START_LIMIT_S
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
                break
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < limit
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            client.headers["X-API-Key"] = "a-key"
            for _ in range(20):  # on one connection, whose bytes are all its answers'
                answer = client.post("/predict", files={"file": SEVEN})
                assert answer.json()["digit"] == 7
            assert client.post("/admin/reload", timeout=START_LIMIT_S).status_code == 200
        process.terminate()
        assert process.wait(START_LIMIT_S) == 0
    finally:
        process.kill()
        process.communicate()


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
