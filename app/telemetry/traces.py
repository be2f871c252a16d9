"""Trace context of W3C (https://www.w3.org/TR/trace-context/): whose trace a request belongs to."""

import random
import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace.

    Attributes:
        trace_id: 32 hexadecimal digits, not all 0.
        span_id: 16 of them, likewise.
        sampled: whether who called records the trace.
    """

    trace_id: str
    span_id: str
    sampled: bool

    def child(self) -> "TraceContext":
        """A new place below this one."""
        return TraceContext(self.trace_id, f"{random.randrange(1, 2**64):016x}", self.sampled)

    def header(self) -> str:
        """As `traceparent` and `traceresponse` carry it."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def parse_traceparent(value: bytes) -> TraceContext | None:
    """The caller's place, None where the header is not valid: then a trace of its own starts."""
    found = _TRACEPARENT.fullmatch(value.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # Versions to come may add to the end; this one may not.
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id.decode(), span_id.decode(), bool(int(flags, 16) & _SAMPLED))
