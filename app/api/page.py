"""GET /: the page, and GET /web/...: what it is made of."""

import mimetypes
import os
from pathlib import Path

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

_APP = Path(__file__).parents[1]
_ACCEPT_ENCODING = b"accept-encoding"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
}

# A browser runs a module of no other type, and what a system calls these files differs.
mimetypes.add_type("text/javascript", ".js")


class _Files(StaticFiles):
    """The files of a folder, compressed for clients that take that."""

    def __init__(self, folder: str) -> None:
        super().__init__(directory=_APP / folder)
        self._compressed = GZipMiddleware(super().__call__, minimum_size=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = dict(scope)
        if scope["method"] == "HEAD":  # has a GET's headers; the server leaves the content out
            scope["method"] = "GET"
        if not _takes_gzip(Headers(scope=scope).get("accept-encoding", "")):
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != _ACCEPT_ENCODING]
        await self._compressed(scope, receive, send)

    def get_path(self, scope: Scope) -> str:
        return str(os.path.normpath(scope["path_params"].get("name", "index.html")))

    def file_response(
        self,
        full_path: "str | os.PathLike[str]",
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        # Kept, but asked about each time: no page is half of this version and half of another.
        response.headers["Cache-Control"] = "no-cache"
        if response.status_code == 304:
            response.headers["Vary"] = "Accept-Encoding"
        elif Path(full_path).suffix == ".html":
            response.headers.update(_PAGE_HEADERS)
        if _ACCEPT_ENCODING in dict(scope["headers"]):  # that form of the file has its own tag
            response.headers["ETag"] = f"W/{response.headers['ETag']}"
        return response


class _Route(Route):
    """A route that log lines and figures name, as they name FastAPI's."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, {**child, "route": self}


ROUTES = [
    _Route("/", _Files("web"), methods=["GET", "HEAD"]),
    _Route("/web/samples/{name:path}", _Files("samples"), methods=["GET", "HEAD"]),
    _Route("/web/{name:path}", _Files("web"), methods=["GET", "HEAD"]),
]


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding field (RFC 9110, 12.5.3) takes gzip by name."""
    for coding in accepted.split(","):
        name, _, weight = coding.partition(";")
        if name.strip().lower() == "gzip":
            return weight.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
