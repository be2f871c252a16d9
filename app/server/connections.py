"""Connections within limits: what a slow, greedy or idle client may cost, whatever it asks for."""

import asyncio
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.gate.service import Service
from app.inference.batcher import QueueFullError
from app.settings import Settings
from app.telemetry.requests import request_id_of, tell
from app.wire import problems, refusals
from app.wire.problems import RequestError

# Extension of a request's scope: its body is here when the application is called, and its answer
# may be given whole, to the extension's `send_whole`.
WHOLE = "perceiver.whole"
MAX_HEAD_BYTES = 64 * 1024
KEEP_ALIVE_S = 5
# Whoever reads a body refuses a slow sender in time; this much later the connection itself goes.
BODY_GRACE_S = 2.0

logger = logging.getLogger(__name__)


# Refused here, before they cost what a request costs: an overload must not use up what it lacks.
_SHED = {path.encode(): path for path in ("/predict", "/predict/batch")}


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds on connections.

    Attributes:
        connections: at once, at most; beyond, one without a request gives way to the newcomer.
        head_s: seconds for a request's line and headers, and for a client to take its answer.
        body_s: seconds for a request's body.
    """

    connections: int
    head_s: float
    body_s: float

    @classmethod
    def of(cls, settings: Settings) -> "ConnectionLimits":
        """As the settings have them."""
        return cls(settings.max_connections, settings.head_timeout_s, settings.body_timeout_s)


class Phase(Enum):
    """What a connection waits for."""

    HEAD = "the request's head"
    BODY = "its body"
    ANSWER = "our answer"
    IDLE = "another request"


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which by itself waits for a request's head and body for ever.

    A subclass has the limits, see `limited`; `sweep` enforces those of time.
    """

    limits: ConnectionLimits
    service: Service

    # uvicorn narrows the transport's type as well
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._enter(Phase.HEAD)
        self._head_bytes = 0
        self._shed = False  # this request is refused: its body goes nowhere
        self._blocked_since: float | None = None  # the client does not take what we send
        if len(self.connections) > self.limits.connections and not self._make_room():
            self._refuse(problems.TOO_MANY_CONNECTIONS, "as many clients are connected as may be")

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
            self._head_bytes = 0
        super().data_received(data)
        if self.phase is Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                detail = f"the request's head has more than {MAX_HEAD_BYTES:,} bytes"
                self._refuse(problems.HEAD_TOO_LARGE, detail)

    def on_message_begin(self) -> None:
        if self.phase is not Phase.HEAD:  # a pipelined request
            self._enter(Phase.HEAD)
            self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._shed = self._sheds()
        if not self._shed:
            super().on_headers_complete()
            if self.service.draining:  # or the next request would meet the end of the connection
                self.cycle.keep_alive = False
        self._enter(Phase.BODY)

    def on_body(self, body: bytes) -> None:
        if not self._shed:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._shed:
            self._enter(Phase.IDLE)
            return
        super().on_message_complete()
        self.scope["extensions"] = {WHOLE: {"send_whole": partial(send_whole, self.cycle)}}
        self._enter(Phase.IDLE if self.cycle.response_complete else Phase.ANSWER)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.phase is Phase.ANSWER and not self.pipeline:
            self._enter(Phase.IDLE)

    def send_400_response(self, msg: str) -> None:
        self._refuse(problems.MALFORMED_REQUEST, "the request is not HTTP/1.1")

    def enforce(self, now: float) -> None:
        """Ends a connection that takes too long.

        Args:
            now: on the event loop's clock.
        """
        limits, waited = self.limits, now - self.since
        if self.transport.get_write_buffer_size() == 0:
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = now
        elif now - self._blocked_since > limits.head_s:
            self.transport.abort()
            return
        if self.phase is Phase.HEAD and waited > limits.head_s:
            detail = f"the request's head did not arrive within {limits.head_s:g} s"
            self._refuse(problems.UPLOAD_STALLED, detail)
        elif self.phase is Phase.BODY and waited > limits.body_s + BODY_GRACE_S:
            self.transport.abort()
        elif self.phase is Phase.IDLE and waited > KEEP_ALIVE_S + 1:
            self.transport.close()

    def _sheds(self) -> bool:
        """Refuses a request for which there is no room, if the connection is free to say so."""
        path = _SHED.get(self.url)
        service = self.service
        if path is None or not service.is_full() or service.settings.cors_origins:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        if self.parser.get_method() != b"POST":
            return False
        request_id = request_id_of(self.headers)
        keep = b"keep-alive" if self.parser.should_keep_alive() else b"close"
        self.transport.write(_refusal(path) % (keep, request_id.encode()))
        if keep == b"close":
            self.transport.close()
        tell(
            service.metrics,
            request_id=request_id,
            method="POST",
            route=path,
            path=path,
            status=problems.QUEUE_FULL.status,
            seconds=0.0,
            reason=problems.QUEUE_FULL.slug,
        )
        return True

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since = self.loop.time()

    def _make_room(self) -> bool:
        """Closes the connection that has been longest without a request, if there is one."""
        others = [
            other
            for other in cast(Iterable[Connection], self.connections)
            if other is not self
            and other.phase in (Phase.IDLE, Phase.HEAD)
            and not other.transport.is_closing()
        ]
        if not others:
            return False
        # Those who have had their answer go before those who may still be asking.
        min(
            others, key=lambda other: (other.phase is not Phase.IDLE, other.since)
        ).transport.close()
        return True

    def _refuse(self, kind: problems.Kind, detail: str) -> None:
        """Answers with a problem, where no answer is under way, and closes."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            problem = refusals.describe(RequestError(kind, detail), "/")
            headers = {"Connection": "close", "X-Request-ID": uuid.uuid4().hex}
            response = refusals.respond(problem, headers)
            head = [b"HTTP/1.1 %d %s" % (kind.status, HTTPStatus(kind.status).phrase.encode())]
            head += [b"%s: %s" % header for header in response.raw_headers]
            self.service.metrics.rejected(kind.slug)
            self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()


async def send_whole(
    cycle: RequestResponseCycle, status: int, fields: Iterable[tuple[bytes, bytes]], content: bytes
) -> None:
    """Sends an answer in one piece, where ASGI takes two: each write may have to wake a client.

    Args:
        cycle: of the request.
        status: of HTTP.
        fields: of the header, with the content's length; valid.
        content: the whole body.
    """
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if cycle.disconnected:
        return
    fields = [*cycle.default_headers, *fields]
    if not cycle.keep_alive:
        fields.append((b"connection", b"close"))
    head = [b"%s: %s\r\n" % field for field in fields]
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(b"".join([STATUS_LINE[status], *head, b"\r\n", content]))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


@cache
def _refusal(path: str) -> bytes:
    """The answer to a request for which there is no room; lacks a connection's and a request's."""
    error = QueueFullError("as many images are waiting as may")
    response = refusals.respond(refusals.describe(error, path))
    head = [b"HTTP/1.1 503 Service Unavailable"]
    head += [b"%s: %s" % header for header in response.raw_headers]
    head += [b"server-timing: total;dur=0.00", b"x-content-type-options: nosniff"]
    return b"\r\n".join([*head, b"connection: %s", b"x-request-id: %s", b"", bytes(response.body)])


def limited(limits: ConnectionLimits, service: Service) -> type[Connection]:
    """The protocol class with these limits, for uvicorn."""
    return type("LimitedConnection", (Connection,), {"limits": limits, "service": service})


def sweep(connections: Iterable[Any], now: float) -> None:
    """Ends those connections that take too long; called about once a second.

    Args:
        connections: of the class `Connection`.
        now: on the event loop's clock.
    """
    for connection in list(connections):
        connection.enforce(now)
