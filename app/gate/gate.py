"""What every request passes first: its key is looked at, and the room that uploads take."""

import base64
import hashlib
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.gate.service import Service
from app.wire import problems, refusals
from app.wire.problems import UPLOADS_FULL, RequestError

# What orchestrators and the page's visitors ask for before they could have a key.
_OPEN = re.compile(r"/(health(/live|/ready)?|v2/health/(live|ready)|web/.*|)")
NOSNIFF = (b"x-content-type-options", b"nosniff")
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
# An upload up to this size is taken even when the uploads together are too large.
FAIR_SHARE = 64 * 1024


def is_open(path: str) -> bool:
    """Whether a path answers without a key."""
    return _OPEN.fullmatch(path) is not None


class Guard:
    """ASGI middleware: refuses whom the keys don't admit, bounds uploads, adds security headers."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._uploaded = 0  # bytes of bodies of requests that have no answer yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded_send = _with_security_headers(send)
        keys = self._service.keys
        if keys and not is_open(scope["path"]):
            given = given_key(scope)
            if given is None or not keys.admit(given):
                await _refuse(given)(scope, receive, guarded_send)
                return
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, guarded_send)
            return
        mine = 0
        limit = self._service.settings.max_upload_bytes

        async def guarded_receive() -> Message:
            nonlocal mine
            message = await receive()
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                mine += size
                self._uploaded += size
                if self._uploaded > limit and mine > FAIR_SHARE:
                    raise RequestError(UPLOADS_FULL, "the uploads under way take all room")
            return message

        try:
            await self._app(scope, guarded_receive, guarded_send)
        finally:
            self._uploaded -= mine


def given_key(scope: Scope) -> bytes | None:
    """The key that comes as `X-API-Key` or as a bearer token."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value)
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return bytes(value[7:].strip())
    return None


def _refuse(given: bytes | None) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if given is None:
            detail, challenge = "send an API key as X-API-Key or as a bearer token", "Bearer"
        else:
            detail, challenge = "the API key is not valid", 'Bearer error="invalid_token"'
        error = RequestError(problems.UNAUTHORIZED, detail)
        problem = refusals.describe(error, refusals.instance_of(scope["path"]))
        response = refusals.respond(problem, {"WWW-Authenticate": challenge})
        await response(scope, receive, send)

    return answer


def _with_security_headers(send: Send) -> Send:
    """`send` that tells browsers to trust an answer no further than they must."""
    held: Message | None = None  # the start of a page, until its content tells its scripts

    async def guarded(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start":
            headers = message["headers"] = list(message["headers"])
            names = {name for name, _ in headers}
            if NOSNIFF[0] not in names:
                headers.append(NOSNIFF)
            is_page = (b"content-type", b"text/html; charset=utf-8") in headers
            if is_page and b"content-security-policy" not in names:
                held = message
                return
        elif held is not None:
            held["headers"] += _page_headers(message.get("body", b""))
            await send(held)
            held = None
        await send(message)

    return guarded


def _page_headers(page: bytes) -> list[tuple[bytes, bytes]]:
    """For a page of ours whose own inline scripts may run, and no others."""
    hashes = [
        b"'sha256-" + base64.b64encode(hashlib.sha256(script).digest()) + b"'"
        for script in _INLINE_SCRIPT.findall(page)
    ]
    policy = [
        b"default-src 'none'",
        b"script-src " + b" ".join([b"'self'", *hashes]),
        b"style-src 'self' 'unsafe-inline'",
        b"img-src 'self' data:",
        b"connect-src 'self'",
        b"base-uri 'none'",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
    ]
    return [
        (b"content-security-policy", b"; ".join(policy)),
        (b"referrer-policy", b"no-referrer"),
    ]
