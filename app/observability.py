"""What operators see of each request: its id, Server-Timing, figures and one log line."""

import logging
import random
import re
import time
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.logs import REQUEST_ID, log_request
from app.metrics import Metrics
from app.predictor import Timing
from app.traces import TraceContext, parse_traceparent

if TYPE_CHECKING:
    from app.spans import Spans

_ID = re.compile(rb"[!-~]{1,128}")  # visible ASCII
_STAGES = tuple(field.name for field in fields(Timing))

NO_ROUTE = "other"  # the label of a path that no route answers: an asset, or nothing

logger = logging.getLogger(__name__)


class Observe:
    """ASGI middleware: names each request, times it, logs it, and answers for what it breaks."""

    def __init__(self, app: ASGIApp, metrics: Metrics, spans: "Spans | None" = None) -> None:
        self._app = app
        self._metrics = metrics
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id, caller, tracestate = _names(scope)
        span = None
        trace = caller.child() if caller else None
        if self._spans:
            span = self._spans.start(scope["method"], caller, tracestate)
            trace = span.place
        REQUEST_ID.set(request_id)
        state = scope.setdefault("state", {})
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                total = time.perf_counter() - started
                headers["Server-Timing"] = server_timing(state.get("timing"), total)
                if trace is not None:
                    headers["traceresponse"] = trace.header()
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            logger.exception("a request failed")
            if status:  # half an answer is out: nothing but cutting it off is honest
                raise
            problem = problems.describe(error, problems.instance_of(scope["path"]))
            await problems.respond(problem)(scope, receive, send_with_headers)
        finally:
            line = self._tell(scope, request_id, trace, status, time.perf_counter() - started)
            if span is not None:
                span.end(line, state.get("timing"))

    def _tell(
        self,
        scope: Scope,
        request_id: str,
        trace: TraceContext | None,
        status: int,
        seconds: float,
    ) -> dict[str, str | float]:
        """Counts and logs a request; the fields of its line."""
        state, method = scope["state"], scope["method"]
        route = getattr(scope.get("route"), "path", "") or NO_ROUTE
        line: dict[str, str | float] = {
            "request_id": request_id,
            "method": method,
            "route": route,
            "path": scope["path"],
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
        }
        if status:  # else no answer began
            self._metrics.request(route, method, status, seconds)
        if reason := state.get("reason"):
            self._metrics.rejected(reason)
            line["reason"] = reason
        if timing := state.get("timing"):
            for stage in _STAGES:
                line[f"{stage}_ms"] = round(getattr(timing, stage) * 1000, 3)
        if trace is not None:
            line["trace_id"], line["span_id"] = trace.trace_id, trace.span_id
        log_request(line, failed=status >= 500 or not status)
        return line


def server_timing(timing: Timing | None, total: float) -> str:
    """A Server-Timing header; seconds in, milliseconds out."""
    stages = {} if timing is None else {stage: getattr(timing, stage) for stage in _STAGES}
    stages["total"] = total
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in stages.items())


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's own id if it is visible ASCII of bearable length, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value, "ascii")
    return f"{random.getrandbits(128):032x}"


def tell_refusal(metrics: Metrics, path: str, request_id: str, kind: problems.Kind) -> None:
    """Counts and logs a POST that was refused before it came to the application."""
    metrics.request(path, "POST", kind.status, 0.0)
    metrics.rejected(kind.slug)
    line: dict[str, str | float] = {
        "request_id": request_id,
        "method": "POST",
        "route": path,
        "path": path,
        "status": kind.status,
        "duration_ms": 0.0,
        "reason": kind.slug,
    }
    log_request(line, failed=True)


def _names(scope: Scope) -> tuple[str, TraceContext | None, str]:
    """The request's id, the caller's place in a trace, if it has one, and its `tracestate`."""
    traceparents: list[bytes] = []
    tracestates: list[str] = []
    for name, value in scope["headers"]:
        if name == b"traceparent":
            traceparents.append(value)
        elif name == b"tracestate":
            tracestates.append(value.decode("latin-1"))
    caller = parse_traceparent(traceparents[0]) if len(traceparents) == 1 else None
    return request_id_of(scope["headers"]), caller, ",".join(tracestates)
