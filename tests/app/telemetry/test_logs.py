"""Log lines, as a server writes them and as they are formatted."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.logs import JsonFormatter, TextFormatter, formatter
from app.telemetry.traces import TraceContext, parse_traceparent
from tests.conftest import ROOT, encode
from tests.digits import load_digits

SEVEN = encode(load_digits()[0][0])
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


@contextmanager
def logging_server(log_format: str, stderr: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server whose log goes to a file descriptor; its address."""
    flags = ["--port", "0", "--drain-delay-s", "0", "--log-format", log_format]
    process = subprocess.Popen(
        [sys.executable, "-m", "app", *flags],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().endswith("/docs"):
                yield line.split()[-1].removesuffix("/docs"), process
                break
    finally:
        process.kill()
        process.communicate()


def requests(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        client.post(
            "/predict?token=secret",
            content=SEVEN,
            headers={
                "Content-Type": "image/png",
                "X-Request-ID": "mine",
                "Authorization": "Bearer secret",
                "traceparent": f"00-{TRACE}-{CALLER}-01",
            },
        )
        client.get("/nowhere%0A2026 forged")


def test_json_lines(tmp_path):
    path = tmp_path / "log"
    with path.open("w") as file, logging_server("auto", file.fileno()) as (url, process):
        requests(url)
        process.terminate()
        assert process.wait(30) == 0
    text = path.read_text()
    assert "secret" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    predicted, lost = [line for line in lines if line["logger"] == "app.access"]
    assert abs(datetime.fromisoformat(predicted["time"]).timestamp() - path.stat().st_mtime) < 60
    assert predicted["level"] == "info"
    assert predicted["request_id"] == "mine"
    assert predicted["method"] == "POST"
    assert predicted["route"] == predicted["path"] == "/predict"
    assert predicted["status"] == 200
    assert predicted["trace_id"] == TRACE
    assert re.fullmatch(r"[0-9a-f]{16}", predicted["span_id"])
    stages = [predicted[f"{stage}_ms"] for stage in ("decode", "preprocess", "queue", "infer")]
    assert 0 < sum(stages) <= predicted["duration_ms"]
    assert lost["route"] == "other"
    assert lost["path"] == "/nowhere\n2026 forged"
    assert lost["status"] == 404
    assert lost["reason"] == "not-found"
    assert re.fullmatch(r"[0-9a-f]{32}", lost["request_id"])
    assert "trace_id" not in lost


@pytest.mark.parametrize("no_color", ["", "1"])
def test_lines_on_a_terminal(no_color: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", no_color)
    ours, theirs = pty.openpty()
    with logging_server("auto", theirs) as (url, process):
        requests(url)
        process.terminate()
        process.wait(30)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # at the end of what is written there
        while part := os.read(ours, 10_000):
            written += part
    os.close(ours)
    text = written.decode()
    assert ("\x1b[32m200\x1b[0m" in text) != bool(no_color)
    plain = re.sub(r"\x1b\[\d+m", "", text)
    predicted, lost = plain.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} 200 POST /predict [\d.]+ ms "
        r"\(decode [\d.]+ preprocess [\d.]+ queue [\d.]+ infer [\d.]+\) mine",
        predicted,
    )
    assert r" 404 GET /nowhere\n2026 forged " in lost


def record(message: str, *arguments: object, **members: object) -> logging.LogRecord:
    made = logging.LogRecord("app.x", logging.ERROR, __file__, 1, message, arguments, None)
    made.__dict__.update(members)
    return made


@given(st.text(), st.text())
def test_whatever_is_asked_for_stays_one_line(path: str, request_id: str):
    fields = {
        "request_id": request_id.encode("ascii", "ignore").decode().replace("\n", ""),
        "method": "GET",
        "route": "other",
        "path": path,
        "status": 404,
        "duration_ms": 1.0,
    }
    line = JsonFormatter().format(record("request", fields=fields))
    assert "\n" not in line
    assert json.loads(line)["path"] == path
    shown = TextFormatter(coloured=False).format(
        record("request", fields=dict(fields, request_id="x"))
    )
    assert len(shown.splitlines()) == 1
    assert "\x1b" not in shown


def test_an_exception_is_told_whole():
    try:
        raise ValueError("inside")
    except ValueError:
        failed = record("the engine failed: %s", 7, exc_info=sys.exc_info())
    line = json.loads(JsonFormatter().format(failed))
    assert line["message"] == "the engine failed: 7"
    assert line["level"] == "error"
    assert "ValueError: inside" in line["exception"]
    assert "ValueError: inside" in TextFormatter(coloured=False).format(failed)


def test_the_format_asked_for_is_taken():
    assert isinstance(formatter("json"), JsonFormatter)
    assert isinstance(formatter("text"), TextFormatter)
    with open(os.devnull) as stream:
        assert isinstance(formatter("auto", stream), JsonFormatter)


def test_traceparent_as_the_specification_has_it():
    place = parse_traceparent(f"00-{TRACE}-{CALLER}-01".encode())
    assert place == TraceContext(TRACE, CALLER, sampled=True)
    child = place.child()
    assert child.trace_id == TRACE
    assert child.span_id != CALLER
    assert parse_traceparent(child.header().encode()) == child
    assert parse_traceparent(f"00-{TRACE}-{CALLER}-02".encode()) == TraceContext(
        TRACE, CALLER, sampled=False
    )
    assert parse_traceparent(f"cc-{TRACE}-{CALLER}-01-later".encode())
    for wrong in (
        "",
        f"00-{TRACE}-{CALLER}",
        f"00-{TRACE}-{CALLER}-01-more",
        f"ff-{TRACE}-{CALLER}-01",
        f"00-{TRACE.upper()}-{CALLER}-01",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"cc-{TRACE}-{CALLER}-01.later",
    ):
        assert parse_traceparent(wrong.encode()) is None, wrong


@given(st.binary(max_size=80))
def test_no_traceparent_fails(value: bytes):
    parse_traceparent(value)


def test_the_answer_tells_its_place_in_the_callers_trace(client: httpx.Client):
    answer = client.get("/health", headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
    place = parse_traceparent(answer.headers["traceresponse"].encode())
    assert place is not None
    assert place.trace_id == TRACE
    assert place.span_id != CALLER
    assert place.sampled
    assert "traceresponse" not in client.get("/health").headers
    assert "traceresponse" not in client.get("/health", headers={"traceparent": "00-x"}).headers
