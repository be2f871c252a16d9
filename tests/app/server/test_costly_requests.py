"""Requests made to cost much: refused, or served within bounds that others hardly feel."""

import gzip
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.settings import Settings
from tests.app.api.test_bad_requests import assert_problem
from tests.attacks import LEGAL, REFUSED, attack, flat_png, gzip_bomb, string_among_numbers
from tests.conftest import ROOT, START_LIMIT_S, Server, encode, serving, wait_until
from tests.digits import load_digits

SEVEN = load_digits()[0][0]
SMALL = encode(SEVEN)
LARGER = encode(np.kron(255 - SEVEN, np.ones((11, 11), np.uint8))[:300, :300])
POSTCODE = (ROOT / "app/samples/postcode.png").read_bytes()
INFER = "/v2/models/perceiver-mnist/infer"
IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": SEVEN.ravel().tolist()}


@pytest.fixture(scope="module")
def costly() -> Iterator[httpx.Client]:
    """To a server of its own: its memory is looked at."""
    with serving() as server, httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client:
        client.headers["X-Server-Pid"] = str(server.process.pid)
        yield client


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def figure(client: httpx.Client, name: str) -> float:
    """Of /metrics: the value after this name and labels."""
    page = client.get("/metrics").text
    return float(next(line for line in page.splitlines() if line.startswith(name)).split()[-1])


@pytest.mark.parametrize("name", REFUSED)
def test_what_costs_too_much_is_refused(costly: httpx.Client, name: str):
    response = costly.post("/predict", files={"file": attack(name)})
    assert response.status_code in (413, 422)
    assert response.json()["type"].rpartition("/")[2] in (
        "too-costly",
        "too-many-pixels",
        "unreadable-image",
    )


@pytest.mark.parametrize("name", ["16 MP, WebP", "25 MP in 20 scans, JPEG", "20,000 strips, TIFF"])
def test_what_is_legal_is_read(costly: httpx.Client, name: str):
    assert name in LEGAL
    assert costly.post("/predict", files={"file": attack(name)}).status_code == 200


def test_a_batch_has_a_bound_on_its_pixels(costly: httpx.Client):
    files = [("files", attack("16 MP, WebP"))] * 6 + [("files", SMALL)]
    predictions = costly.post("/predict/batch", files=files).json()["predictions"]
    read = [prediction for prediction in predictions if "label" in prediction]
    room = Settings().max_request_pixels // int(1.5 * 4080 * 4080)
    assert len(read) == room + 1
    assert read[-1]["digit"] == 7
    for prediction in predictions[room:-1]:
        assert prediction["error"]["type"] == "/problems/too-costly"
        assert prediction["error"]["status"] == 413


def test_pictures_of_others_do_not_wait_for_batches_of_large_ones():
    """Many at once have far more to decode than fits in the time that a small picture takes."""
    files = [("files", attack("16 MP, WebP"))] * 64
    stop = threading.Event()
    with serving() as server:

        def flood() -> set[int]:
            statuses = set()
            with httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client:
                while not stop.is_set():
                    statuses.add(client.post("/predict/batch", files=files).status_code)
            return statuses

        with (
            ThreadPoolExecutor(6) as pool,
            httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client,
        ):
            floods = [pool.submit(flood) for _ in range(6)]
            try:
                wait_until(lambda: figure(client, PENDING) > 10**8)
                for picture in (LARGER, SMALL) * 5:
                    response = client.post("/predict", files={"file": picture})
                    assert response.json()["digit"] == 7
                    assert client.get("/health/ready").status_code == 200
                waiting = figure(client, PENDING)
            finally:
                stop.set()
            assert waiting <= Settings().max_pending_pixels
        assert set().union(*(each.result() for each in floods)) <= {200, 503, 504}


PENDING = 'perceiver_budget_taken{budget="pending_pixels"'


def test_the_budgets_are_told(costly: httpx.Client):
    limits = costly.get("/metadata").json()["limits"]
    settings = Settings()
    for name in ("max_pixels", "max_request_pixels", "max_pending_pixels", "max_upload_bytes"):
        assert limits[name] == getattr(settings, name)
    for budget in ("pending_pixels", "upload_bytes"):
        labels = f'{{budget="{budget}",worker="0"}}'
        assert figure(costly, f"perceiver_budget_limit{labels}") == limits[f"max_{budget}"]
        assert figure(costly, f"perceiver_budget_taken{labels}") == 0


@contextmanager
def memory_of(server: Server) -> Iterator[list[float]]:
    """MiB at most of the process alone, above what it takes at first."""
    status = Path(f"/proc/{server.process.pid}/status")

    def told(name: str) -> float:
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

    before, grown = told("VmRSS"), [0.0]
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak starts anew
    yield grown
    grown[0] = told("VmHWM") - before


def test_inflated_bodies_share_the_room_for_uploads():
    """Forty bodies of 60 KB that inflate to 60 MB each."""
    bomb = gzip_bomb(60 * 2**20)
    headers = {"Content-Encoding": "gzip"}
    with (
        serving() as server,
        ThreadPoolExecutor(41) as pool,
        httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client,
    ):
        with memory_of(server) as grown:
            bombs = [
                pool.submit(
                    httpx.post, server.url + INFER, content=bomb, headers=headers, timeout=60
                )
                for _ in range(40)
            ]
            good = gzip.compress(httpx.Request("POST", "http://x", json={"inputs": [IMAGE]}).read())
            while not all(each.done() for each in bombs):
                response = client.post(INFER, content=good, headers=headers)
                assert response.json()["outputs"][1]["data"] == [7]
        statuses = {each.result().status_code for each in bombs}
        assert statuses <= {400, 413, 503, 504}
        assert 503 in statuses
        assert grown[0] < 3 * Settings().max_upload_bytes / 2**20
        assert figure(client, 'perceiver_budget_taken{budget="upload_bytes"') < 1000


def test_inflating_has_a_deadline():
    with serving("--request-timeout-s", "0.05") as server:
        body, headers = gzip_bomb(60 * 2**20), {"Content-Encoding": "gzip"}
        response = httpx.post(server.url + INFER, content=body, headers=headers, timeout=60)
        assert response.status_code == 504
        assert response.json().keys() == {"error"}


@pytest.mark.parametrize("length", [4000, 10_000])
def test_a_string_among_numbers_is_refused_before_it_takes_room(length: int):
    with serving() as server, memory_of(server) as grown:
        body = gzip.compress(string_among_numbers(length))
        response = httpx.post(
            server.url + INFER, content=body, headers={"Content-Encoding": "gzip"}, timeout=60
        )
        assert response.status_code == 400
    assert grown[0] < 100


def test_large_json_is_read_aside(costly: httpx.Client):
    """In a decoder, which may be killed; the event loop answers others meanwhile."""
    many = {**IMAGE, "shape": [64, 28, 28], "data": SEVEN.ravel().tolist() * 64}
    padding = " " * 2**20
    response = costly.post(
        INFER,
        content=padding
        + httpx.Request("POST", "http://x", json={"inputs": [many]}).read().decode(),
    )
    digits = next(each for each in response.json()["outputs"] if each["name"] == "digit")
    assert digits["data"] == [7] * 64
    for times, status in ((20, 400), (33, 413)):
        response = costly.post(INFER, content=padding * times + '{"inputs": 1}')
        assert response.status_code == status
        assert response.json().keys() == {"error"}


def test_decoders_that_are_killed_are_replaced(costly: httpx.Client):
    for _ in range(3):
        assert costly.post("/predict", files={"file": LARGER}).json()["digit"] == 7
        decoders = descendants(int(costly.headers["X-Server-Pid"]))
        assert decoders
        for pid in decoders:
            os.kill(pid, signal.SIGKILL)


def test_without_decoders_it_is_not_ready_until_it_has_some():
    with (
        serving() as server,
        httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client,
    ):
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert client.get("/health/ready").status_code == 200
        taken = max(map(int, os.listdir(f"/proc/{pid}/fd")))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (taken + 2, before[1]))
        response = client.post("/predict", files={"file": LARGER})
        assert_problem(response, 503, "not-ready", "/predict")
        assert client.get("/health/ready").status_code == 503
        assert client.post("/predict", files={"file": SMALL}).json()["digit"] == 7
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert client.get("/health/ready").status_code == 200
        assert client.post("/predict", files={"file": LARGER}).json()["digit"] == 7


def test_what_takes_too_long_is_ended_and_told():
    with (
        serving("--max-decode-cpu-s", "0.1") as server,
        httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client,
    ):
        for _ in range(2):
            response = client.post("/predict", files={"file": attack("25 MP of RGBA, PNG")})
            assert_problem(response, 413, "too-costly", "/predict")
        assert client.post("/predict", files={"file": LARGER}).json()["digit"] == 7


def test_what_takes_too_much_memory_is_told():
    with (
        serving("--max-decode-bytes", str(2**27), "--max-pixels", "50000000") as server,
        httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client,
    ):
        response = client.post("/predict", files={"file": flat_png(7000, 7000, 6)})
        assert_problem(response, 413, "too-costly", "/predict")
        assert client.post("/predict", files={"file": LARGER}).json()["digit"] == 7


def test_many_numbers_are_read_at_once(costly: httpx.Client):
    """Small pictures have room, however many there are."""
    with ThreadPoolExecutor(60) as pool:
        url = f"{costly.base_url}/read"
        answers = list(
            pool.map(lambda _: httpx.post(url, files={"file": POSTCODE}, timeout=60), range(60))
        )
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_way_out_waits_for_nobodys_picture(workers: str):
    """All decoders are busy, and more wait than could be decoded in the time that is left."""
    files = [("files", attack("25 MP of RGBA, PNG"))] * 64
    settings = ("--request-timeout-s", "2", "--max-request-pixels", "2000000000")
    room = ("--max-pending-pixels", "100000000000", "--max-decode-cpu-s", "600")
    with (
        serving(*settings, *room, "--workers", workers) as server,
        ThreadPoolExecutor(8) as pool,
    ):

        def flood() -> None:
            with suppress(httpx.TransportError):  # it was ended with the server
                httpx.post(f"{server.url}/predict/batch", files=files, timeout=START_LIMIT_S)

        for _ in range(8):
            pool.submit(flood)
        with httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client:
            wait_until(lambda: figure(client, PENDING) > 10**9)
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 2 + 1 + 1  # one for a machine that does other things
