"""Requests as OpenTelemetry spans, exported by OTLP over HTTP; imported where that is asked for.

Sampling, batches and resource attributes follow OpenTelemetry's own environment variables.
"""

import os
import time
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import get_current_span
from starlette.types import ASGIApp, Receive, Scope, Send

from app.inference.predictor import Timing
from app.telemetry.traces import TraceContext

_NS = 1_000_000_000
# How long an export may take: at the end, one is waited for.
_EXPORT_LIMIT_S = 3

# The stable names of attributes, which the instrumentation has not yet made its default.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")


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

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The application, with a span around each request: below the caller's, if it has one.

        The span is the current one until the last byte of the answer is sent, which ends it.
        """

        async def unwrapped(told: Scope, receive: Receive, send: Send) -> None:
            await app(told["scope"], receive, send)

        traced: ASGIApp = OpenTelemetryMiddleware(
            unwrapped,
            default_span_details=lambda scope: (scope["method"], {}),
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            # Queries may hold secrets, and who asks is not for the collector to know.
            told = {**scope, "query_string": b"", "client": None, "scope": scope}
            places = [name for name, _ in scope["headers"] if name == b"traceparent"]
            if len(places) > 1:  # which is as good as none (Trace Context, section 3.2.1)
                told["headers"] = [each for each in scope["headers"] if each[0] not in places]
            await traced(told, receive, send)

        return wrapped

    def place(self) -> TraceContext:
        """The current span's place in its trace."""
        context = get_current_span().get_span_context()
        return TraceContext(
            f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled
        )

    def describe(
        self, name: str, route: str, request_id: str, reason: str | None, timing: Timing | None
    ) -> None:
        """Tells the current span what became of its request; called before the answer has ended.

        Args:
            name: of the span.
            route: that answers.
            request_id: as the log has it.
            reason: slug of the problem that is the answer.
            timing: of its prediction. The stages' spans are laid one after the other so that the
                last ends now: the service measures how long each took, not when it began.
        """
        span = get_current_span()
        if not isinstance(span, Span) or not span.is_recording():
            return
        span.update_name(name)
        span.set_attributes({"http.route": route, "perceiver.request_id": request_id})
        if reason is not None:
            span.set_attribute("error.type", reason)
        if timing is not None:
            self._record_stages(span, timing)

    def close(self) -> None:
        """Exports what is left; takes some seconds at most."""
        self._provider.shutdown()

    def _record_stages(self, request: Span, timing: Timing) -> None:
        now = time.time_ns()
        lengths = {name: int(seconds * _NS) for name, seconds in timing._asdict().items()}
        start = max(request.start_time or 0, now - sum(lengths.values()))
        for stage, length in lengths.items():
            end = min(now, start + length)
            if length:  # the request's span is the current one, so this is its child
                self._tracer.start_span(stage, start_time=start).end(end)
            start = end
