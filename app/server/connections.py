"""Connections within limits: what a slow, greedy or idle client may cost, whatever it asks for."""

import asyncio
import math
import resource
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.gate.service import FAULT, Service
from app.server.request_body import Body
from app.server.request_head import body_of, find_head, malformed, version_of
from app.settings import Settings
from app.wire import problems, refusals
from app.wire.problems import RequestError

KEEP_ALIVE_S = 5
# A connection that has just come brings a request, even where the service ends.
ON_ITS_WAY_S = 0.3
# Whoever reads a body refuses a slow sender in time; this much later the connection itself goes.
BODY_GRACE_S = 2.0
# Bytes a second that a client must keep up with, and how many seconds of them it may be behind.
LEAST_RATE = 1024
PATIENCE_S = 10.0
# A client that has had less time than this to begin can't be called slow.
START_S = 0.05
# A client that has had its answer may send its next request at any moment, for so long at least.
SPARED_S = 1.0
# Bytes of a body that are read on after its request was answered: many clients look for the answer
# when they have sent all.
MOST_AFTER_ANSWER = 2**26
# A client that ends its side waits this long for its answer; then it is taken to have left.
HALF_CLOSE_S = 1.0
OTHER_FILES = 128  # that a process opens besides its connections


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds on connections.

    Attributes:
        connections: at once, at most; beyond, the slowest client gives way to the newcomer.
        head_s: seconds for a request's line and headers, and for a client to take its answer.
        body_s: seconds for a request's body.
    """

    connections: int
    head_s: float
    body_s: float

    @classmethod
    def of(cls, settings: Settings) -> "ConnectionLimits":
        """As the settings have them, and as the process may have files."""
        return cls(
            affordable(settings.max_connections), settings.head_timeout_s, settings.body_timeout_s
        )


def affordable(connections: int) -> int:
    """So many connections, or as many as the system lets this process have files for.

    A process that may open no more files can't take a newcomer, and so lets nobody give way to it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, soft - OTHER_FILES)
    return connections


class Phase(Enum):
    """What a connection waits for."""

    HEAD = "the request's head"
    BODY = "its body"
    ANSWER = "our answer"
    IDLE = "another request"


class Reading(FlowControl):
    """Flow control whose reading can be held, whoever would go on with it."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP protocol, given one whole head and one body at a time.

    httptools parses heads alone; where a head and a body end is told by `app.server.request_head`
    and `app.server.request_body`, so that no two readers can differ on it. What follows a request
    waits until that is answered. A subclass has the limits, see `limited`; `sweep` enforces those
    of time.
    """

    limits: ConnectionLimits
    service: Service
    flow: Reading

    # uvicorn narrows the transport's type as well
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Reading(transport)
        self._rest = b""  # came, and is not read yet
        self._unasked = 0  # bytes of the body that came after its answer
        self._known = 0  # bytes of it that make no whole head
        self._ended = False  # the client's side
        self._blocked_since: float | None = None  # the client does not take what we send
        self._enter(Phase.HEAD)
        if len(self.connections) > self.limits.connections and not self._make_room():
            detail = "as many clients are connected as may be"
            self._refuse(RequestError(problems.TOO_MANY_CONNECTIONS, detail))

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._came += len(data)
        self._rest = self._rest + data if self._rest else data
        self._read()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn never keeps it open
        """True keeps the connection for an answer."""
        self._ended = True
        waits = self.phase is Phase.ANSWER and self.loop.time() - self.since < HALF_CLOSE_S
        return waits and not self.cycle.response_complete

    def _read(self) -> None:
        """Reads what has come, as far as a request may be answered now."""
        while not self.transport.is_closing():
            if self.phase is Phase.BODY:
                if not self._read_body():
                    return
            elif not self._rest:
                return
            elif self.phase is Phase.ANSWER:
                self.flow.held = True
                self.flow.pause_reading()
                return
            else:
                if self.phase is Phase.IDLE:
                    self._enter(Phase.HEAD, len(self._rest))
                try:
                    if not self._read_head():
                        return
                except RequestError as error:
                    self._refuse(error)

    def _read_head(self) -> bool:
        """Begins to answer the request whose head is whole; False: it is not.

        Raises:
            RequestError: it is malformed, or of no size or version that is served.
        """
        place = find_head(self._rest, self._known)
        if place is None:
            self._known = len(self._rest)
            return False
        head = self._rest[slice(*place)]
        self._rest, self._known = self._rest[place[1] :], 0
        self._version = version_of(head)
        before = self.cycle
        self.parser = httptools.HttpRequestParser(self)  # that has seen no body
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # RFC 9110, 7.8: the offer of another protocol may be ignored
        except httptools.HttpParserError as error:
            cause = error.__context__
            raise cause if isinstance(cause, RequestError) else malformed() from None
        if self.cycle is before:  # the parser waits for more, and there is no more
            raise malformed()
        self._unasked = 0
        self._enter(Phase.BODY, len(self._rest))
        return True

    def _read_body(self) -> bool:
        """Hands on what has come of the body; False: there is more to come."""
        if self.cycle.response_complete:  # nobody asks for it any more
            self._unasked += len(self._rest)
            if self._unasked > MOST_AFTER_ANSWER:
                self.transport.close()
                return False
        try:
            rest = self._body.read(self._rest, self.on_body)
        except RequestError as error:
            self._rest = b""
            self._fail(error)
            return False
        self._rest = rest or b""
        if rest is None:
            return False
        super().on_message_complete()
        self._enter(Phase.IDLE if self.cycle.response_complete else Phase.ANSWER)
        return True

    def on_headers_complete(self) -> None:
        self._body: Body = body_of(self.headers, self._version)
        super().on_headers_complete()
        if self.service.draining:  # or the next request would meet the end of the connection
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Of the parser, which sees heads alone."""

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self.phase is not Phase.ANSWER:
            return
        self._enter(Phase.IDLE)
        self.flow.held = False
        if self._rest:
            self._unset_keepalive_if_required()
            self._read()
        self.flow.resume_reading()
        if self._ended and self.phase is not Phase.ANSWER:
            self.transport.close()

    def shutdown(self) -> None:
        if self.phase is Phase.HEAD and self.loop.time() - self.since < ON_ITS_WAY_S:
            self.loop.call_later(ON_ITS_WAY_S, super().shutdown)
        else:
            super().shutdown()

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
        if self._ended and waited > HALF_CLOSE_S:  # its client is taken to have left
            self.transport.abort()
        elif self.phase is Phase.HEAD and waited > limits.head_s:
            detail = f"the request's head did not arrive within {limits.head_s:g} s"
            self._refuse(RequestError(problems.UPLOAD_STALLED, detail))
        elif self.phase is Phase.BODY and waited > limits.body_s + BODY_GRACE_S:
            self.transport.abort()
        elif self.phase is Phase.BODY and self.behind(now) > LEAST_RATE * PATIENCE_S:
            detail = f"the body comes with less than {LEAST_RATE:,} bytes a second"
            self._fail(RequestError(problems.UPLOAD_STALLED, detail))
        elif self.phase is Phase.IDLE and waited > KEEP_ALIVE_S + 1:
            self.transport.close()

    def behind(self, now: float) -> float:
        """Bytes by which the client is behind the least rate.

        -inf where it waits for us, or has only just begun.

        Args:
            now: on the event loop's clock.
        """
        if self._blocked_since is not None:
            return LEAST_RATE * (now - self._blocked_since)
        waited = now - self.since
        least = SPARED_S if self.phase is Phase.IDLE else START_S
        if self.phase is Phase.ANSWER or waited < least:
            return -math.inf
        if self.cycle and self.cycle.waiting_for_100_continue:
            return -math.inf
        return LEAST_RATE * waited - self._came

    def _enter(self, phase: Phase, came: int = 0) -> None:
        self.phase = phase
        self.since = self.loop.time()
        self._came = came  # bytes, since then

    def _make_room(self) -> bool:
        """Ends the connection whose client is the furthest behind the least rate, if one is."""
        now = self.loop.time()
        others = [
            (other.behind(now), other)
            for other in cast(Iterable[Connection], self.connections)
            if other is not self and not other.transport.is_closing()
        ]
        lag, slowest = max(others, key=lambda pair: pair[0], default=(-math.inf, self))
        if lag <= 0:
            return False
        if slowest.phase is Phase.BODY and not slowest.cycle.response_started:
            slowest._fail(RequestError(problems.TOO_MANY_CONNECTIONS, "others wait for this place"))
        elif slowest.phase is Phase.IDLE:
            slowest.transport.close()
        else:
            slowest.transport.abort()
        return True

    def _fail(self, error: RequestError) -> None:
        """Has the rest of a body's place taken by an error, and the connection end after it."""
        if self.cycle.response_complete:
            self.transport.close()
            return
        self.cycle.scope["state"][FAULT] = error
        self.cycle.keep_alive = False
        self.cycle.message_event.set()
        self._enter(Phase.ANSWER)

    def _refuse(self, error: RequestError) -> None:
        """Answers a request that has no whole head with a problem, and closes."""
        if self.transport.is_closing():
            return
        problem = refusals.describe(error, "/")
        headers = {"Connection": "close", "X-Request-ID": uuid.uuid4().hex}
        response = refusals.respond(problem, headers)
        status = error.kind.status
        head = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
        head += [b"%s: %s" % header for header in response.raw_headers]
        self.service.metrics.rejected(error.kind.slug)
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
