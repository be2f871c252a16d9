"""OpenTelemetry spans, as a collector receives them by OTLP over HTTP."""

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from app.application import create_app
from app.inference.predictor import Predictor
from app.settings import Settings
from model.checkpoint.folder import Checkpoint
from tests.app.api.conftest import MoodyEngine
from tests.conftest import ROOT, encode, serving
from tests.digits import load_digits

SEVEN = encode(load_digits()[0][0])
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


@dataclass
class Collector:
    """What was received."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, str] = field(default_factory=dict)

    def take(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {a.key: a.value.string_value for a in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans += scope.spans


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            good = self.path == "/v1/traces"
            if good:
                collector.take(body)
            self.send_response(200 if good else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def attributes(span: Span) -> dict[str, object]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_a_collector_gets_each_request_and_its_stages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    with collecting() as collector, serving("--otlp-endpoint", collector.url) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            headers = {
                "traceparent": f"00-{TRACE}-{CALLER}-01",
                "tracestate": "vendor=1",
                "X-Request-ID": "mine",
                "Content-Type": "image/png",
            }
            called = client.post("/predict?token=secret", content=SEVEN, headers=headers)
            unsampled = client.get("/health", headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})
            own = client.get("/nowhere")
        assert server.stop() == 0  # exports what is left
    assert collector.resource["service.name"] == "perceiver-serve"
    assert collector.resource["deployment.environment"] == "test"
    requests = {span.name: span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER}
    assert requests.keys() == {"POST /predict", "GET other"}
    predicted, lost = requests["POST /predict"], requests["GET other"]
    assert predicted.trace_id.hex() == TRACE
    assert predicted.parent_span_id.hex() == CALLER
    assert predicted.trace_state == "vendor=1"
    assert called.headers["traceresponse"] == f"00-{TRACE}-{predicted.span_id.hex()}-01"
    assert unsampled.headers["traceresponse"].endswith("-00")
    assert own.headers["traceresponse"] == f"00-{lost.trace_id.hex()}-{lost.span_id.hex()}-01"
    told = attributes(predicted)
    assert told.items() >= {
        ("http.request.method", "POST"),
        ("http.route", "/predict"),
        ("http.response.status_code", 200),
        ("url.path", "/predict"),
        ("perceiver.request_id", "mine"),
    }
    assert "secret" not in str(told)
    assert not any(name.startswith(("client.", "net.", "http.url")) for name in told)
    assert attributes(lost)["error.type"] == "not-found"
    assert lost.status.code == Status.STATUS_CODE_UNSET  # the caller's fault
    stages = sorted(
        (span for span in collector.spans if span.parent_span_id == predicted.span_id),
        key=lambda span: span.start_time_unix_nano,
    )
    assert [span.name for span in stages] == ["decode", "preprocess", "queue", "infer"]
    for before, after in pairwise(stages):
        assert before.end_time_unix_nano <= after.start_time_unix_nano
    assert predicted.start_time_unix_nano <= stages[0].start_time_unix_nano
    assert stages[-1].end_time_unix_nano <= predicted.end_time_unix_nano
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in stages)
    assert len(collector.spans) == len(requests) + len(stages)


@pytest.mark.anyio
async def test_a_fault_of_ours_is_an_error(checkpoint: Checkpoint):
    engine = MoodyEngine()
    engine.fails_above = -1.0
    with collecting() as collector:
        settings = Settings(otlp_endpoint=collector.url)
        app = create_app(settings, lambda settings: Predictor(checkpoint.card, engine, settings))
        await app.start()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://inside") as client:
            answer = await client.post("/predict", files={"file": SEVEN})
        await app.stop()
    assert answer.status_code == 500
    (span,) = collector.spans
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "internal"
    assert attributes(span)["http.response.status_code"] == 500


def test_without_a_collector_the_service_answers_and_ends():
    with serving("--otlp-endpoint", "http://127.0.0.1:9") as server:
        answer = httpx.post(f"{server.url}/predict", files={"file": SEVEN}, timeout=30)
        assert answer.json()["digit"] == 7
        assert server.stop() == 0


def test_nothing_is_imported_where_no_spans_are_asked_for():
    code = "import sys; from app.application import create_app; create_app(); "
    code += "import app.serve_command; "
    code += "unwanted = {'app.telemetry.spans', 'opentelemetry.sdk', "
    code += "'opentelemetry.instrumentation'}; print(sorted(unwanted & sys.modules.keys()))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.strip() == "[]", result.stderr
