"""One request and its answer, between the server and what answers."""

import time
from typing import TYPE_CHECKING

from starlette.types import Message, Receive, Scope, Send

from app.gate.identity import identify
from app.gate.security import NOSNIFF, lacks_policy, page_headers
from app.gate.service import FAULT, TAKE
from app.inference.budgets import Budget
from app.telemetry.metrics import Metrics
from app.telemetry.requests import server_timing, tell

if TYPE_CHECKING:
    from app.telemetry.spans import Spans

NO_ROUTE = "other"  # the label of a path that no route answers: an asset, or nothing


class Exchange:
    """Counts the bytes that come in, adds headers to the answer that goes out, and tells of both.

    Attributes:
        identity: what the request is called.
        trace: its place in a trace, if it has one.
        status: of the answer, 0 until it begins.
        complete: whether all of the answer is out.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        upload_bytes: Budget,
        spans: "Spans | None" = None,
    ) -> None:
        self._started = time.perf_counter()
        self._scope = scope
        self._state = scope.setdefault("state", {})
        scope[TAKE] = self.take
        self._receive = receive
        self._send = send
        self._upload_bytes = upload_bytes
        self._uploaded = 0
        self._is_faulty = False  # the body, and all before the fault is received
        self._held: Message | None = None  # a page's start, until its content tells its scripts
        self.identity = identify(scope["headers"])
        self._spans = spans
        caller = self.identity.caller
        self.trace = spans.place() if spans else caller.child() if caller else None
        self.status = 0
        self.complete = False

    async def receive(self) -> Message:
        """Takes room for the body as it comes.

        Raises:
            UploadsFullError: the uploads under way take all room.
            RequestError: what comes is malformed; all that was well before it is received first.
        """
        if self._is_faulty:
            raise self._state[FAULT]
        message = await self._receive()
        size = len(message.get("body", b""))
        if FAULT in self._state:
            if not size:
                raise self._state[FAULT]
            self._is_faulty = True
        self.take(size)
        return message

    def take(self, size: int) -> None:
        """Takes room for bytes that the request brings, as they came or inflated, until its end.

        Raises:
            UploadsFullError: the uploads under way take all room.
        """
        if size:
            self._uploaded += size
            self._upload_bytes.take(size, self._uploaded)

    async def send(self, message: Message) -> None:
        """Sends a part of the answer; its start with the headers that every answer has."""
        if message["type"] == "http.response.start":
            headers = message["headers"] = [*message["headers"], *self._headers()]
            if lacks_policy(headers):
                self._held = message
                return
            await self._begin(message)
            return
        if self._held is not None:
            start, self._held = self._held, None
            start["headers"] += page_headers(message.get("body", b""))
            await self._begin(start)
        self.complete = not message.get("more_body", False)
        await self._send(message)

    async def _begin(self, start: Message) -> None:
        self.status = start["status"]
        await self._send(start)
        if self._spans:  # the answer's end is also the span's
            state = self._state
            self._spans.describe(
                f"{self._scope['method']} {self._route()}",
                self._route(),
                self.identity.request_id,
                state.get("reason"),
                state.get("timing"),
            )

    def _route(self) -> str:
        return getattr(self._scope.get("route"), "path", "") or NO_ROUTE

    def end(self, metrics: Metrics) -> None:
        """Frees the body's room, counts the request and logs it."""
        self._upload_bytes.give_back(self._uploaded)
        del self._scope[TAKE]  # or the two would refer to each other
        scope, state = self._scope, self._state
        tell(
            metrics,
            request_id=self.identity.request_id,
            method=scope["method"],
            route=self._route(),
            path=scope["path"],
            status=self.status,
            seconds=time.perf_counter() - self._started,
            reason=state.get("reason"),
            timing=state.get("timing"),
            trace=self.trace,
        )

    def _headers(self) -> list[tuple[bytes, bytes]]:
        total = time.perf_counter() - self._started
        headers = [
            NOSNIFF,
            (b"x-request-id", self.identity.request_id.encode()),
            (b"server-timing", server_timing(self._state.get("timing"), total)),
        ]
        if self.trace is not None:
            headers.append((b"traceresponse", self.trace.header().encode()))
        return headers
