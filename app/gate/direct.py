"""The short way to /predict and back, for a request that has arrived whole."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from json.encoder import encode_basestring_ascii as quote
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.gate import bodies as uploads
from app.gate.gate import FAIR_SHARE, NOSNIFF, given_key
from app.gate.service import Service
from app.inference.predictor import Prediction, Timing
from app.server.connections import WHOLE
from app.telemetry.logs import REQUEST_ID
from app.telemetry.requests import request_id_of, server_timing, tell
from app.telemetry.traces import parse_traceparent
from app.wire import refusals
from model.checkpoint.card import Card

PATH = "/predict"
_JSON = (b"content-type", b"application/json")

SendWhole = Callable[[int, list[tuple[bytes, bytes]], bytes], Awaitable[None]]

logger = logging.getLogger(__name__)


class Direct:
    """ASGI: answers what most requests are, and passes everything else on to the application.

    Layers, routing, and the objects made for them cost more than all else that a small request
    does here. What is answered here, the application would answer alike.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        # These have more to say than what is said here.
        self._off = bool(service.settings.cors_origins or service.settings.otlp_endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["path"] != PATH
            or scope["method"] != "POST"
            or self._off
            or WHOLE not in scope.get("extensions", ())
        ):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        message = await receive()
        image = None
        # A header that comes twice, like all that is not plain, is for those who look closer.
        if len(headers) == len(scope["headers"]) and self._admits(scope):
            image = self._image(headers, message)
        if image is None:
            await self._app(scope, _again(message, receive), send)
            return
        send_whole = scope["extensions"][WHOLE]["send_whole"]
        await self._answer(headers, image, receive, send_whole, started)

    def _admits(self, scope: Scope) -> bool:
        keys = self._service.keys
        if not keys:
            return True
        given = given_key(scope)
        return given is not None and keys.admit(given)

    def _image(self, headers: Mapping[bytes, bytes], message: Message) -> bytes | None:
        """The image in a plain body that is here whole."""
        body: bytes = message.get("body", b"")
        if message["type"] != "http.request" or message["more_body"] or len(body) > FAIR_SHARE:
            return None
        kind = headers.get(b"content-type", b"").decode("latin-1")
        max_bytes = self._service.settings.max_bytes
        boundary = uploads.plain_boundary(kind)
        if boundary is not None:
            return uploads.plain_form(body, boundary, uploads.FIELD, max_bytes)
        is_image = kind.lower().startswith("image/")
        return body if is_image and 0 < len(body) <= max_bytes else None

    async def _answer(
        self,
        headers: Mapping[bytes, bytes],
        image: bytes,
        receive: Receive,
        send_whole: SendWhole,
        started: float,
    ) -> None:
        request_id = request_id_of(headers.items())
        REQUEST_ID.set(request_id)
        caller = None
        if b"traceparent" in headers:
            caller = parse_traceparent(headers[b"traceparent"])
        trace = caller.child() if caller else None
        timing: Timing | None = None
        reason: str | None = None
        status = 0
        try:
            try:
                predictor = self._service.predictor
                work = predictor.predict(image, self._service.deadline())
                prediction = await uploads.unless_gone(receive, work)
                timing = prediction.timing
                content = predict_json(prediction, predictor.card)
                fields: list[tuple[bytes, bytes]] = [_JSON, _length(content)]
                status = 200
            except Exception as error:
                if not isinstance(error, refusals.HANDLED):
                    logger.exception("a request failed")
                response = refusals.respond(refusals.describe(error, PATH))
                content, fields = bytes(response.body), response.raw_headers
                status, reason = response.status_code, refusals.kind_of(error).slug
            total = time.perf_counter() - started
            fields += [
                NOSNIFF,
                (b"x-request-id", request_id.encode()),
                (b"server-timing", server_timing(timing, total).encode()),
            ]
            if trace is not None:
                fields.append((b"traceresponse", trace.header().encode()))
            await send_whole(status, fields, content)
        finally:
            tell(
                self._service.metrics,
                request_id=request_id,
                method="POST",
                route=PATH,
                path=PATH,
                status=status,
                seconds=time.perf_counter() - started,
                reason=reason,
                timing=timing,
                trace=trace,
            )


def predict_json(prediction: Prediction, card: Card) -> bytes:
    """A `PredictAnswer` as JSON, in a fraction of the time that making one would take."""
    digit = prediction.digit
    return (
        f'{{"digit":{"null" if digit is None else digit},"label":{quote(prediction.label)},'
        f'"confidence":{prediction.confidence!r},'
        f'"probabilities":[{",".join(map(repr, prediction.probabilities))}],'
        f'"novelty":{prediction.novelty!r},'
        f'"recognized":{"true" if prediction.recognized else "false"},'
        f'"model":{quote(card.name)},"version":{quote(card.version)}}}'
    ).encode()


def _length(content: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(content)


def _again(first: Message, receive: Receive) -> Receive:
    """`receive` whose first message was received already."""
    messages: list[Any] = [first]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
