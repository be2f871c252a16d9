"""GET /metrics, read by prometheus-client's own parsers: exact, and the same from every worker."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from app.telemetry.exposition import Exposition
from app.telemetry.metrics import FIGURES, Metrics
from tests.conftest import Server, encode, serving, wait_until
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
SEVEN = encode(IMAGES[0])
LIMIT_S = 30.0
REJECTED = "perceiver_http_requests_rejected_total"

# Each request over a connection of its own, so that any worker may answer.
FRESH = httpx.Client(headers={"Connection": "close"}, timeout=LIMIT_S)

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def figures_in(page: str) -> Figures:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in read_text(page)
        for sample in family.samples
    }


def scrape(url: str) -> Figures:
    return figures_in(FRESH.get(f"{url}/metrics").text)


def value(figures: Figures, name: str, /, **labels: str) -> float:
    return figures.get((name, frozenset(labels.items())), 0.0)


def total(figures: Figures, name: str) -> float:
    return sum(number for (found, _), number in figures.items() if found == name)


def workers(figures: Figures, name: str) -> set[str]:
    return {dict(labels)["worker"] for found, labels in figures if found == name}


def test_each_request_counts_where_it_should(server: Server, client: httpx.Client):
    before = scrape(server.url)
    for _ in range(3):
        client.post("/predict", files={"file": SEVEN})
    client.post("/predict", files={"file": b"no image"})
    client.post("/predict/batch", files=[("files", SEVEN), ("files", b"no image")])
    client.post("/v2/models/other/infer", content=b"{}")
    client.request("PROPFIND", "/health")
    client.get("/nowhere")
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(b"no HTTP\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    after = scrape(server.url)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    count = "perceiver_http_request_duration_seconds_count"
    assert more(count, route="/predict", method="POST", status="200") == 3
    assert more(count, route="/predict", method="POST", status="415") == 1
    assert more(count, route="/predict/batch", method="POST", status="200") == 1
    assert more(count, route="/v2/models/{name}/infer", method="POST", status="404") == 1
    assert more(count, route="/health", method="other", status="405") == 1
    assert more(count, route="other", method="GET", status="404") == 1
    bucket = count.replace("_count", "_bucket")
    answered = {"route": "/predict", "method": "POST", "status": "200"}
    assert more(bucket, le="+Inf", **answered) == 3
    assert more(bucket, le="0.0025", **answered) <= more(bucket, le="0.5", **answered) <= 3
    assert 0 < more(count.replace("_count", "_sum"), **answered) < LIMIT_S
    assert more(REJECTED, reason="unsupported-image") == 1  # of requests, not of a batch's images
    assert more(REJECTED, reason="model-not-found") == 1
    assert more(REJECTED, reason="method-not-allowed") == 1
    assert more(REJECTED, reason="not-found") == 1
    assert more(REJECTED, reason="malformed-request") == 1  # it got to no route
    assert more(REJECTED, reason="queue-full") == 0
    assert (REJECTED, frozenset({("reason", "queue-full")})) in after
    for stage in ("decode", "preprocess", "queue", "infer"):
        assert more("perceiver_stage_duration_seconds_count", stage=stage) == 4
    assert more("perceiver_batch_size_sum") == 4
    assert 1 <= more("perceiver_batch_size_count") <= 4
    assert more("perceiver_predictions_total", label="7") == 4
    assert more("perceiver_prediction_confidence_count") == 4
    assert more("perceiver_prediction_novelty_count") == 4
    assert more("perceiver_prediction_novelty_bucket", le="0.5") == 4  # it is a digit
    assert more("perceiver_prediction_confidence_bucket", le="0.95") == 0
    assert value(after, "perceiver_queue_depth", worker="0") == 0


def test_the_model_and_the_process_are_told(server: Server, client: httpx.Client):
    figures = scrape(server.url)
    metadata = client.get("/metadata").json()
    labels = {
        "name": metadata["card"]["name"],
        "version": metadata["card"]["version"],
        "engine": metadata["engine"]["name"],
        "device": metadata["engine"]["device"],
    }
    assert value(figures, "perceiver_model_info", worker="0", **labels) == 1
    if Path("/proc/self/stat").exists():
        assert value(figures, "process_resident_memory_bytes", worker="0") > 2**20
        assert value(figures, "process_cpu_seconds_total", worker="0") > 0
        assert value(figures, "process_open_fds", worker="0") > 3


def test_both_formats_are_well_formed(client: httpx.Client):
    text = client.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    named = {family.name: family for family in read_text(text.text)}
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    strict = client.get("/metrics", headers=accept)
    assert strict.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in read_openmetrics(strict.text)} == named.keys()


def test_names_follow_prometheus_conventions(client: httpx.Client):
    for family in read_text(client.get("/metrics").text):
        assert re.fullmatch(r"(perceiver|process)_[a-z_]+", family.name)
        assert family.documentation.endswith(".") or family.name == "perceiver_model_info"
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
        if "duration" in family.name:
            assert family.name.endswith("_seconds")


@pytest.fixture(scope="module")
def pair() -> Iterator[Server]:
    with serving("--workers", "2") as running:
        wait_until(lambda: len(workers(scrape(running.url), "perceiver_queue_depth")) == 2)
        yield running
        running.stop()


def processes_of(server: Server) -> list[int]:
    """Those that serve: the supervisor's children that listen."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    pids = [int(pid) for pid in children.read_text().split()]
    return [p for p in pids if b"resource_tracker" not in Path(f"/proc/{p}/cmdline").read_bytes()]


def predict(server: Server, count: int) -> int:
    """Sends so many over connections of their own, at once; how many were answered."""

    def one(index: int) -> bool:
        try:
            answer = FRESH.post(f"{server.url}/predict", files={"file": SEVEN})
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(one, range(count)))


def test_any_worker_tells_the_figures_of_all(pair: Server):
    name = "perceiver_predictions_total"
    before = total(scrape(pair.url), name)
    assert predict(pair, 40) == 40
    seen = {total(scrape(pair.url), name) for _ in range(12)}
    assert seen == {before + 40}
    figures = scrape(pair.url)
    for gauge in ("perceiver_queue_depth", "perceiver_model_info"):
        assert workers(figures, gauge) == {"0", "1"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_what_a_killed_worker_counted_stays_and_its_gauges_vanish(pair: Server):
    answered = predict(pair, 20)
    before = scrape(pair.url)
    started = "process_start_time_seconds"
    victim = processes_of(pair)[0]
    os.kill(victim, signal.SIGKILL)

    def replaced() -> bool:
        try:
            now = scrape(pair.url)
        except httpx.TransportError:  # the connection was the killed worker's
            return False
        for name in ("perceiver_predictions_total", "perceiver_batch_size_sum"):
            assert total(now, name) >= total(before, name) >= answered
        assert workers(now, "perceiver_queue_depth") == workers(now, started) <= {"0", "1"}
        both = workers(now, started) == {"0", "1"}
        return both and total(now, started) > total(before, started)

    wait_until(replaced)
    final = scrape(pair.url)
    assert predict(pair, 10) == 10
    grown = total(scrape(pair.url), "perceiver_predictions_total")
    assert grown == total(final, "perceiver_predictions_total") + 10


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_service_killed_whole_leaves_no_files(pair: Server):
    maps = Path(f"/proc/{processes_of(pair)[0]}/maps").read_text()
    folder = Path(re.search(r"(/\S*/perceiver-\w+)/\d+\.values", maps)[1])
    assert folder.is_dir()
    pair.process.kill()
    wait_until(lambda: not folder.exists())


def test_a_successor_goes_on_where_a_worker_ended(tmp_path: Path):
    first, second = Metrics(tmp_path), Metrics(tmp_path)
    for metrics in (first, second):
        metrics.rejected("queue-full")
        metrics.queued(3)
        metrics.model("m", "1.0.0", "e", "cpu")
    page = Exposition(second).page("")[0].decode()
    assert value(figures_in(page), REJECTED, reason="queue-full") == 2
    assert workers(figures_in(page), "perceiver_queue_depth") == {"0", "1"}
    first.close()
    page = Exposition(second).page("")[0].decode()
    assert value(figures_in(page), REJECTED, reason="queue-full") == 2
    assert workers(figures_in(page), "perceiver_queue_depth") == {"1"}
    third = Metrics(tmp_path)
    third.rejected("queue-full")
    figures = figures_in(Exposition(third).page("")[0].decode())
    assert value(figures, REJECTED, reason="queue-full") == 3
    assert value(figures, "perceiver_queue_depth", worker="0") == 0
    assert workers(figures, "perceiver_model_info") == {"1"}
    assert len(list(tmp_path.glob("*.values"))) == 2


def test_every_figure_is_told_from_the_start():
    families = {family.name: family for family in Exposition(Metrics()).collect()}
    for name, figure in FIGURES.items():
        assert families[name].documentation == figure.help
