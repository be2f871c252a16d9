"""Connections within limits: what a slow, greedy or idle client may cost, whatever it asks for."""

import asyncio
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.gate.service import Service
from app.settings import Settings
from app.wire import problems, refusals
from app.wire.problems import RequestError

MAX_HEAD_BYTES = 64 * 1024
KEEP_ALIVE_S = 5
# Whoever reads a body refuses a slow sender in time; this much later the connection itself goes.
BODY_GRACE_S = 2.0

logger = logging.getLogger(__name__)


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
        super().on_headers_complete()
        if self.service.draining:  # or the next request would meet the end of the connection
            self.cycle.keep_alive = False
        self._enter(Phase.BODY)

    def on_message_complete(self) -> None:
        super().on_message_complete()
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
