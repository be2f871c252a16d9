"""Request bodies read within limits that hold while they stream."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from multipart import parse_options_header
from starlette.requests import Request
from starlette.types import Receive

from app.gate.service import Service
from app.wire.problems import (
    CLIENT_GONE,
    EMPTY_BODY,
    TOO_MANY_BYTES,
    UNSUPPORTED_CONTENT_TYPE,
    UPLOAD_STALLED,
    RequestError,
)

T = TypeVar("T")

WATCH_AFTER_S = 0.02


def content_type(request: Request) -> tuple[str, dict[str, str]]:
    """The media type in lower case, empty where there is none, and its parameters.

    Raises:
        RequestError: the headers announce no body.
    """
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        raise RequestError(EMPTY_BODY, "the request has no body; send an image")
    kind, parameters = parse_options_header(headers.get("content-type", ""))
    return kind, parameters


def unsupported(found: str, expected: str) -> RequestError:
    """The refusal of a content type."""
    what = f"the content type is {found}" if found else "there is no content type"
    return RequestError(UNSUPPORTED_CONTENT_TYPE, f"{what}; send {expected}")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """A whole body.

    Raises:
        RequestError: larger than `max_bytes`, stalled, empty, or its sender hung up.
    """
    body = bytearray()
    await read_chunks(request, max_bytes, body.extend)
    if not body:
        raise RequestError(EMPTY_BODY, "the request has no body; send an image")
    return bytes(body)


async def read_chunks(request: Request, max_bytes: int, take: Callable[[bytes], None]) -> None:
    """Calls `take` with each chunk of a body as it comes; none is empty.

    Raises:
        RequestError: as `read_body`, though a body may be empty; or what `take` raises.
    """
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise _too_large(max_bytes)
    settings = Service.of(request).settings
    loop = asyncio.get_running_loop()
    task = asyncio.current_task(loop)
    assert task is not None
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    end = loop.time() + settings.body_timeout_s
    total = 0
    more = True
    while more:
        pause_end = loop.time() + settings.request_timeout_s
        # In a quarter of the time that asyncio.timeout_at takes, 1 % of a small request's.
        timer = loop.call_at(min(pause_end, end), expire)
        try:
            message = await request.receive()
        except asyncio.CancelledError:
            if not expired or task.uncancel():
                raise
            slow = f"the body did not arrive within {settings.body_timeout_s:g} s"
            pause = f"nothing arrived for {settings.request_timeout_s:g} s"
            raise RequestError(UPLOAD_STALLED, slow if end < pause_end else pause) from None
        finally:
            timer.cancel()
        if message["type"] == "http.disconnect":
            raise RequestError(CLIENT_GONE, "the client hung up")
        chunk: bytes = message.get("body", b"")
        total += len(chunk)
        if total > max_bytes:
            raise _too_large(max_bytes)
        if chunk:
            take(chunk)
        more = message.get("more_body", False)


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(TOO_MANY_BYTES, f"the body has more than {max_bytes:,} bytes")


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Awaits the work, and drops it when the client of a request whose body is read hangs up.

    Most requests are answered before the watch for that begins, and never pay for it.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task(loop)
    assert task is not None
    watch: asyncio.Task[None] | None = None
    ended = False

    def begin() -> None:
        nonlocal watch
        watch = loop.create_task(_hang_up(receive))
        watch.add_done_callback(lambda watch: None if ended or watch.cancelled() else task.cancel())

    timer = loop.call_later(WATCH_AFTER_S, begin)
    try:
        return await work
    except asyncio.CancelledError:
        if watch is None or not watch.done():
            raise
        task.uncancel()
        raise RequestError(CLIENT_GONE, "the client hung up") from None
    finally:
        ended = True
        timer.cancel()
        if watch is not None:
            watch.cancel()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
