"""What a request is called: its id, and its place in the caller's trace."""

import random
import re
from collections.abc import Iterable
from typing import NamedTuple

from app.telemetry.traces import TraceContext, parse_traceparent

_ID = re.compile(rb"[!-~]{1,128}")  # visible ASCII


class Identity(NamedTuple):
    """What a request is called."""

    request_id: str
    caller: TraceContext | None  # the caller's place in a trace
    tracestate: str


def identify(headers: Iterable[tuple[bytes, bytes]]) -> Identity:
    """The caller's own id if it is visible ASCII of bearable length, else a new one."""
    request_id = ""
    caller = None
    traceparents = 0
    tracestates: list[str] = []
    for name, value in headers:
        if name == b"x-request-id":
            if not request_id and _ID.fullmatch(value):
                request_id = value.decode()
        elif name == b"traceparent":
            traceparents += 1
            caller = parse_traceparent(value)
        elif name == b"tracestate":
            tracestates.append(value.decode("latin-1"))
    return Identity(
        request_id or f"{random.getrandbits(128):032x}",
        caller if traceparents == 1 else None,
        ",".join(tracestates),
    )
