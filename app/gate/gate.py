"""The one layer between the server and what answers."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.gate import keys
from app.gate.exchange import Exchange
from app.gate.service import SERVICE, Service
from app.inference.batcher import QueueFullError
from app.inference.models import HOLD, Hold
from app.telemetry.logs import REQUEST_ID
from app.wire import refusals

if TYPE_CHECKING:
    from app.telemetry.spans import Spans

Handler = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


class ShortCut(NamedTuple):
    """A route whose handler is called without looking for it."""

    path: str
    handler: Handler


class Gate:
    """ASGI: lets requests in, and answers out.

    Args:
        app: answers by its routes.
        service: that is asked.
        short_cuts: method and path -> the handler that the application's route calls as well.
            These calls take places in the queue, and are refused while it is full.
        cors: wraps what answers after a request has got its name and before it must show a key,
            which a preflight can't.
        spans: that wrap the gate, and are told what became of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        short_cuts: Mapping[tuple[str, str], Handler],
        cors: Callable[[ASGIApp], ASGIApp] | None = None,
        spans: "Spans | None" = None,
    ) -> None:
        self._app = app
        self._service = service
        self._short_cuts = {key: ShortCut(key[1], call) for key, call in short_cuts.items()}
        self._admitted = cors(self._admit) if cors else self._admit
        self._spans = spans
        self._upload_bytes = service.budgets.upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self._upload_bytes, self._spans)
        REQUEST_ID.set(exchange.identity.request_id)
        hold = Hold()
        HOLD.set(hold)
        try:
            await self._admitted(scope, exchange.receive, exchange.send)
        except Exception as error:
            logger.exception("a request failed")
            if not exchange.status:
                await _problem(error, scope)(scope, receive, exchange.send)
            elif not exchange.complete:  # nothing but cutting it off is honest
                raise
        finally:
            hold.release()
            exchange.end(self._service.metrics)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request, or has it answered."""
        scope[SERVICE] = self._service
        response = keys.refusal(self._service.keys, scope)
        if response is None:
            short_cut = self._short_cuts.get((scope["method"], scope["path"]))
            if short_cut is None:
                await self._app(scope, receive, send)
                return
            response = await self._take(short_cut, scope, receive)
        await response(scope, receive, send)

    async def _take(self, short_cut: ShortCut, scope: Scope, receive: Receive) -> Response:
        """The answer of a short cut's handler."""
        scope["route"] = short_cut
        try:
            # Before the body is read: an overload must not use up what it lacks.
            if self._service.is_full():
                raise QueueFullError("as many images are waiting as may")
            return await short_cut.handler(Request(scope, receive))
        except Exception as error:
            if not isinstance(error, refusals.HANDLED):
                logger.exception("a request failed")
            return _problem(error, scope)


def _problem(error: Exception, scope: Scope) -> Response:
    return refusals.respond(refusals.describe(error, refusals.instance_of(scope["path"])))
