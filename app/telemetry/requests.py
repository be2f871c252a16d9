"""What operators see of a request: its figures, its log line, and its Server-Timing."""

from app.inference.predictor import Timing
from app.telemetry.logs import log_request
from app.telemetry.metrics import Metrics
from app.telemetry.traces import TraceContext

_STAGE_MS = tuple(f"{stage}_ms" for stage in Timing._fields)


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
        "duration_ms": _ms(seconds),
    }
    if status:
        metrics.request(route, method, status, seconds)
    if reason:
        metrics.rejected(reason)
        line["reason"] = reason
    if timing is not None:
        for name, stage in zip(_STAGE_MS, timing, strict=True):
            line[name] = _ms(stage)
    if trace is not None:
        line["trace_id"], line["span_id"] = trace.trace_id, trace.span_id
    log_request(line, failed=status >= 500 or not status)


def server_timing(timing: Timing | None, total: float) -> bytes:
    """A Server-Timing header; seconds in, milliseconds out."""
    if timing is None:
        return b"total;dur=%.2f" % (total * 1000)
    decode, preprocess, queue, infer = timing
    return (
        b"decode;dur=%.2f, preprocess;dur=%.2f, queue;dur=%.2f, infer;dur=%.2f, total;dur=%.2f"
        % (decode * 1000, preprocess * 1000, queue * 1000, infer * 1000, total * 1000)
    )


def _ms(seconds: float) -> float:
    """To three decimals, in half of `round`'s time."""
    return int(seconds * 1e6 + 0.5) / 1000
