"""A request's line and headers, checked as a whole (RFC 9112), before anything acts on them."""

import re
from collections.abc import Iterable

from app.server.request_body import Body, Chunked, Sized
from app.wire.problems import (
    HEAD_TOO_LARGE,
    MALFORMED_REQUEST,
    UNSUPPORTED_VERSION,
    RequestError,
)

MAX_HEAD_BYTES = 64 * 1024

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
# RFC 9112, 2.2: a few empty lines before a request are no mistake.
_EMPTY_LINES = re.compile(rb"(?:\r\n){0,4}")
_HEAD = re.compile(
    rb"(?P<method>" + _TOKEN + rb"{1,24}) [!-~]+ HTTP/(?P<version>[0-9]\.[0-9])\r\n"
    rb"(?:[!-~][\t -~\x80-\xff]*\r\n)*\r\n"  # httptools looks closer at each header
)
_NO_START = re.compile(rb"(?!" + _TOKEN + rb"{0,24}(?: |\r?\Z))")
_NEVER_IN_A_HEAD = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n")
_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding"))
_HOST = re.compile(rb"[0-9A-Za-z._~!$&'()*+,;=%:\[\]-]*[\t ]*")
_LENGTH = re.compile(rb"([0-9]{1,18})[\t ]*")


def find_head(data: bytes, known: int) -> tuple[int, int] | None:
    """Finds the head that data begin with: where it starts and ends; None: more must come.

    What is found, or raised, depends on all bytes together, not on how many came at a time.

    Args:
        data: from the first byte after the request before.
        known: how many of them were here the last time, and made no whole head.

    Raises:
        RequestError: the head is too large, or can't become one of HTTP/1.1.
    """
    empty = _EMPTY_LINES.match(data)
    start = empty.end() if empty else 0
    end = data.find(b"\r\n\r\n", max(start, known - 3), MAX_HEAD_BYTES)
    if end >= 0:
        return start, end + 4
    limit = min(len(data), MAX_HEAD_BYTES)
    if _NO_START.match(data, start, limit) or _NEVER_IN_A_HEAD.search(
        data, max(0, known - 1), limit
    ):
        raise malformed()
    if len(data) >= MAX_HEAD_BYTES:
        detail = f"the request's head has more than {MAX_HEAD_BYTES:,} bytes"
        raise RequestError(HEAD_TOO_LARGE, detail)
    return None


def version_of(head: bytes) -> bytes:
    """The version of HTTP of a whole head: 1.0 or 1.1.

    Raises:
        RequestError: it has another, or is malformed.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise malformed()
    version = match["version"]
    if version not in (b"1.1", b"1.0"):
        raise RequestError(
            UNSUPPORTED_VERSION, f"the request is HTTP/{version.decode()}; send HTTP/1.1"
        )
    if match["method"] == b"CONNECT":
        raise RequestError(MALFORMED_REQUEST, "CONNECT asks for a tunnel, and this is no proxy")
    return version


def body_of(headers: Iterable[tuple[bytes, bytes]], version: bytes) -> Body:
    """The body that headers announce, which is still to come (RFC 9112, 6.3).

    Args:
        headers: with names in lower case.
        version: of HTTP.

    Raises:
        RequestError: two readers might differ on where the body ends or whom the request is for.
    """
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in headers:
        if name in _FRAMING:
            found = hosts if name == b"host" else lengths if name == b"content-length" else codings
            found.append(value)
    if len(hosts) > 1 or (not hosts and version == b"1.1"):
        raise RequestError(MALFORMED_REQUEST, "a request of HTTP/1.1 has one Host header")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise RequestError(MALFORMED_REQUEST, "the Host header names no host")
    if codings:
        if lengths or version == b"1.0" or len(codings) > 1:
            raise RequestError(MALFORMED_REQUEST, "it is not clear where the body ends")
        if codings[0].strip().lower() != b"chunked":
            raise RequestError(MALFORMED_REQUEST, "the only transfer coding is chunked")
        return Chunked(MAX_HEAD_BYTES)
    if not lengths:
        return Sized(0)
    length = _LENGTH.fullmatch(lengths[0])
    if length is None or len(lengths) > 1:
        raise RequestError(MALFORMED_REQUEST, "the Content-Length is not one number of bytes")
    return Sized(int(length[1]))


def malformed() -> RequestError:
    """The refusal of what is not HTTP/1.1."""
    return RequestError(MALFORMED_REQUEST, "the request is not HTTP/1.1")
