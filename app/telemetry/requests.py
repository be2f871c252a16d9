"""What operators see of each request: its id, Server-Timing, figures and one log line."""

import logging
import random
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.inference.predictor import Timing
from app.telemetry.logs import REQUEST_ID, log_request
from app.telemetry.metrics import Metrics
from app.telemetry.traces import TraceContext, parse_traceparent
from app.wire import refusals

if TYPE_CHECKING:
    from app.telemetry.spans import Spans

_ID = re.compile(rb"[!-~]{1,128}")  # visible ASCII
_STAGE_MS = tuple(f"{stage}_ms" for stage in Timing._fields)

NO_ROUTE = "other"  # the label of a path that no route answers: an asset, or nothing

logger = logging.getLogger(__name__)


class Observe:
    """ASGI middleware: names each request, times it, logs it, and answers for what it breaks."""

    def __init__(self, app: ASGIApp, metrics: Metrics, spans: "Spans | None" = None) -> None:
        self._app = app
        self._metrics = metrics
        self._spans = spans
        self._observed: ASGIApp = spans.wrap(self._observe) if spans else self._observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve = self._observed if scope["type"] == "http" else self._app
        await serve(scope, receive, send)

    async def _observe(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id, caller = _names(scope)
        trace = caller.child() if caller else None
        if self._spans:
            trace = self._spans.place()
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
            if self._spans and message["type"] == "http.response.start":
                route = _route_of(scope)
                name = f"{scope['method']} {route}"
                reason, timing = state.get("reason"), state.get("timing")
                self._spans.describe(name, route, request_id, reason, timing)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            logger.exception("a request failed")
            if status:  # half an answer is out: nothing but cutting it off is honest
                raise
            problem = refusals.describe(error, refusals.instance_of(scope["path"]))
            await refusals.respond(problem)(scope, receive, send_with_headers)
        finally:
            tell(
                self._metrics,
                request_id=request_id,
                method=scope["method"],
                route=_route_of(scope),
                path=scope["path"],
                status=status,
                seconds=time.perf_counter() - started,
                reason=state.get("reason"),
                timing=state.get("timing"),
                trace=trace,
            )


def tell(
    metrics: Metrics,
    *,
    request_id: str,
    method: str,
    route: str,
    path: str,
    status: int,
    seconds: float,
    reason: str | None = None,
    timing: Timing | None = None,
    trace: TraceContext | None = None,
) -> None:
    """Counts and logs a request.

    Args:
        status: 0 where no answer began.
        reason: slug of the problem that was the answer.
    """
    line: dict[str, str | float] = {
        "request_id": request_id,
        "method": method,
        "route": route,
        "path": path,
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
    }
    if status:
        metrics.request(route, method, status, seconds)
    if reason:
        metrics.rejected(reason)
        line["reason"] = reason
    if timing is not None:
        for name, stage in zip(_STAGE_MS, timing, strict=True):
            line[name] = round(stage * 1000, 3)
    if trace is not None:
        line["trace_id"], line["span_id"] = trace.trace_id, trace.span_id
    log_request(line, failed=status >= 500 or not status)


def server_timing(timing: Timing | None, total: float) -> str:
    """A Server-Timing header; seconds in, milliseconds out."""
    last = f"total;dur={total * 1000:.2f}"
    if timing is None:
        return last
    decode, preprocess, queue, infer = timing
    return (
        f"decode;dur={decode * 1000:.2f}, preprocess;dur={preprocess * 1000:.2f}, "
        f"queue;dur={queue * 1000:.2f}, infer;dur={infer * 1000:.2f}, {last}"
    )


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's own id if it is visible ASCII of bearable length, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value, "ascii")
    return f"{random.getrandbits(128):032x}"


def _route_of(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "") or NO_ROUTE


def _names(scope: Scope) -> tuple[str, TraceContext | None]:
    """The request's id, and the caller's place in a trace, if it has one."""
    traceparents = [value for name, value in scope["headers"] if name == b"traceparent"]
    caller = parse_traceparent(traceparents[0]) if len(traceparents) == 1 else None
    return request_id_of(scope["headers"]), caller
