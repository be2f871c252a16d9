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


def identify(headers: Iterable[tuple[bytes, bytes]]) -> Identity:
    """The caller's own id if it is visible ASCII of bearable length, else a new one."""
    request_id: str | None = None
    traceparents: list[bytes] = []
    for name, value in headers:
        if name == b"x-request-id":
            if not request_id and _ID.fullmatch(value):
                request_id = value.decode()
        elif name == b"traceparent":
            traceparents.append(value)
    caller = parse_traceparent(traceparents[0]) if len(traceparents) == 1 else None
    return Identity(request_id or f"{random.getrandbits(128):032x}", caller)
