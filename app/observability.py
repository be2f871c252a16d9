"""What operators see: request ids, Server-Timing and one log line per request."""

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.metrics import Metrics
from app.predictor import Timing

_ID = re.compile(rb"[!-~]{1,128}")  # visible ASCII

NO_ROUTE = "other"  # the label of a path that no route answers: an asset, or nothing

logger = logging.getLogger("app.access")

# For uvicorn, which hands it to each worker.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {"app": {"level": "INFO"}},
}


class Observe:
    """ASGI middleware: names each request, times it, logs it, and answers for what it breaks."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                total = time.perf_counter() - started
                headers["Server-Timing"] = server_timing(state.get("timing"), total)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            logger.exception("%s failed", request_id)
            if status:  # half an answer is out: nothing but cutting it off is honest
                raise
            problem = problems.describe(error, problems.instance_of(scope["path"]))
            await problems.respond(problem)(scope, receive, send_with_headers)
        finally:
            self._count(scope, status, time.perf_counter() - started)
            logger.info(
                "%s %s %r %d %.1f ms",
                request_id,
                scope["method"],
                scope["path"],
                status,
                (time.perf_counter() - started) * 1000,
            )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        if not status:  # no answer began
            return
        route = getattr(scope.get("route"), "path", "") or NO_ROUTE
        self._metrics.request(route, scope["method"], status, seconds)
        reason = scope["state"].get("reason")
        if reason:
            self._metrics.rejected(reason)


def server_timing(timing: Timing | None, total: float) -> str:
    """A Server-Timing header; seconds in, milliseconds out."""
    phases = {"total": total}
    if timing is not None:
        phases = {
            "decode": timing.decode,
            "preprocess": timing.preprocess,
            "queue": timing.queue,
            "infer": timing.infer,
            **phases,
        }
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in phases.items())


def _request_id(scope: Scope) -> str:
    """The caller's own if it is visible ASCII of bearable length, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value, "ascii")
    return uuid.uuid4().hex
