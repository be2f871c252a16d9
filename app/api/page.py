"""GET /: the page in app/web, served from memory."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

WEB = Path(__file__).parents[1] / "web"
SAMPLES = Path(__file__).parents[1] / "samples"

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_HEADERS = {
    # Kept, but asked about each time: an upgrade of the service never meets half of an old page.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page.

    Attributes:
        content: its bytes.
        zipped: them in gzip, where that is worth it.
        etag: a digest of them, without quotes.
        headers: that go with it however it is sent.
    """

    content: bytes
    zipped: bytes | None
    etag: str
    headers: dict[str, str]


@cache
def assets() -> dict[str, Asset]:
    """All files of the page by their path under web/."""
    files = {path.relative_to(WEB).as_posix(): path for path in WEB.rglob("*")}
    files |= {f"samples/{path.name}": path for path in SAMPLES.iterdir()}
    return {name: _asset(path) for name, path in files.items() if path.suffix in _MEDIA_TYPES}


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    zipped = None if path.suffix == ".png" else gzip.compress(content, mtime=0)
    headers = {**_HEADERS, "Content-Type": _MEDIA_TYPES[path.suffix]}
    if path.suffix == ".html":
        headers |= _PAGE_HEADERS
    return Asset(content, zipped, hashlib.sha256(content).hexdigest()[:20], headers)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The page itself."""
    return _respond(request, assets()["index.html"])


@router.api_route("/web/{name:path}", methods=["GET", "HEAD"])
async def asset(request: Request) -> Response:
    """What the page is made of."""
    found = assets().get(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    return _respond(request, found)


def _respond(request: Request, found: Asset) -> Response:
    """The file; 304 where the client has it (RFC 9110, 13.1.2)."""
    zipped = found.zipped if _takes_gzip(request.headers.get("accept-encoding", "")) else None
    etag = f'"{found.etag}-gzip"' if zipped else f'"{found.etag}"'
    headers = {**found.headers, "ETag": etag}
    known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    if "*" in known or etag in (tag.removeprefix("W/") for tag in known):
        return Response(status_code=304, headers=headers)
    if zipped:
        headers["Content-Encoding"] = "gzip"
    return Response(zipped or found.content, headers=headers)


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding field (RFC 9110, 12.5.3) takes gzip by name."""
    for coding in accepted.split(","):
        name, _, weight = coding.partition(";")
        if name.strip().lower() == "gzip":
            return weight.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
