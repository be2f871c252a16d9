"""Requests as OpenTelemetry spans, exported by OTLP over HTTP; imported where that is asked for.

Sampling, batches and resource attributes follow OpenTelemetry's own environment variables.
"""

import os
import time
from collections.abc import Mapping
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from app.inference.predictor import Timing
from app.telemetry.traces import TraceContext

_NS = 1_000_000_000
# How long an export may take: at the end, one is waited for.
_EXPORT_LIMIT_S = 3


class Spans:
    """Records one span per request, with one below it per stage of a prediction.

    Args:
        endpoint: a collector's base URL, as http://127.0.0.1:4318.
    """

    def __init__(self, endpoint: str) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", "perceiver-serve")
        package = version("perceiver-serve")
        resource = Resource.create({"service.name": name, "service.version": package})
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_LIMIT_S)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("app", package)

    def start(self, method: str, caller: TraceContext | None, tracestate: str) -> "RequestSpan":
        """Begins a request's span: below the caller's, if it told of one."""
        context = None
        if caller is not None:
            parent = SpanContext(
                int(caller.trace_id, 16),
                int(caller.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(caller.sampled),
                trace_state=TraceState.from_header([tracestate]),
            )
            context = set_span_in_context(NonRecordingSpan(parent))
        started = time.time_ns()
        span = self._tracer.start_span(method, context, SpanKind.SERVER, start_time=started)
        return RequestSpan(self, span, started)

    def stage(self, name: str, parent: Span, start_ns: int, end_ns: int) -> None:
        """Records a stage that is over."""
        context = set_span_in_context(parent)
        self._tracer.start_span(name, context, start_time=start_ns).end(end_ns)

    def close(self) -> None:
        """Exports what is left; takes some seconds at most."""
        self._provider.shutdown()


class RequestSpan:
    """The span of a request that is being answered."""

    def __init__(self, spans: Spans, span: Span, started_ns: int) -> None:
        self._spans = spans
        self._span = span
        self._started_ns = started_ns
        context = span.get_span_context()
        self.place = TraceContext(
            f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled
        )

    def end(self, facts: Mapping[str, str | float], timing: Timing | None) -> None:
        """Ends it with what became of the request.

        Args:
            facts: the fields of the request's log line.
            timing: of its prediction. The stages' spans are laid one after the other so that the
                last ends now: the service measures how long each took, not when it began.
        """
        ended = time.time_ns()
        if self._span.is_recording():
            self._span.update_name(f"{facts['method']} {facts['route']}")
            self._span.set_attributes(
                {
                    "http.request.method": str(facts["method"]),
                    "http.route": str(facts["route"]),
                    "http.response.status_code": int(facts["status"]),
                    "url.path": str(facts["path"]),
                    "perceiver.request_id": str(facts["request_id"]),
                }
            )
            if "reason" in facts:
                self._span.set_attribute("error.type", str(facts["reason"]))
            if int(facts["status"]) >= 500:
                self._span.set_status(StatusCode.ERROR)
            if timing is not None:
                self._end_stages(timing, ended)
        self._span.end(ended)

    def _end_stages(self, timing: Timing, ended: int) -> None:
        lengths = {name: int(seconds * _NS) for name, seconds in timing._asdict().items()}
        start = max(self._started_ns, ended - sum(lengths.values()))
        for stage, length in lengths.items():
            end = min(ended, start + length)
            if length:
                self._spans.stage(stage, self._span, start, end)
            start = end
