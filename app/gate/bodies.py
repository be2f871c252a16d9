"""Request bodies read within limits that hold while they stream."""

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.types import Receive

from app.gate.service import Service
from app.settings import Settings
from app.wire.problems import (
    CLIENT_GONE,
    EMPTY_BODY,
    MALFORMED_FORM,
    TOO_MANY_BYTES,
    TOO_MANY_FILES,
    UNSUPPORTED_CONTENT_TYPE,
    UPLOAD_STALLED,
    WRONG_FIELD,
    RequestError,
)

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

T = TypeVar("T")

FORM = "multipart/form-data"
FIELD = "file"  # of a form of one image
# Room in a form's body for boundaries and part headers.
FORM_OVERHEAD = 64 * 1024
WATCH_AFTER_S = 0.02
_PLAIN_BOUNDARY = re.compile(r"multipart/form-data; ?boundary=([\w'()+,./:=?-]{1,70})", re.ASCII)
_PLAIN_HEADER = re.compile(rb"[\w-]+: ?[^\s]")
_PLAIN_DISPOSITION = re.compile(
    rb'content-disposition: form-data; name="([\w-]+)"(?:; filename="[^"\\\r\n]*")?', re.IGNORECASE
)


@dataclass(frozen=True)
class FormLimits:
    """Bounds on a form.

    Attributes:
        field: name that each part must have.
        files: parts, at most.
        file_bytes: of one part, at most.
        body_bytes: of the whole body, at most.
        stall_s: seconds between two chunks, at most.
    """

    field: str
    files: int
    file_bytes: int
    body_bytes: int
    stall_s: float


def content_type(request: Request) -> str:
    """The content type's essence in lower case, empty where there is none.

    Raises:
        RequestError: the headers announce no body.
    """
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        raise RequestError(EMPTY_BODY, "the request has no body; send an image")
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def unsupported(found: str, expected: str) -> RequestError:
    """The refusal of a content type."""
    what = f"the content type is {found}" if found else "there is no content type"
    return RequestError(UNSUPPORTED_CONTENT_TYPE, f"{what}; send {expected}")


async def read_image(request: Request, settings: Settings) -> bytes:
    """One image: the form's field `file`, or the body itself.

    Raises:
        RequestError: too large, malformed, of another type, stalled, or its sender hung up.
    """
    kind = content_type(request)
    if kind.startswith("image/"):
        return await read_body(request, settings.max_bytes, settings.request_timeout_s)
    if kind != FORM:
        raise unsupported(kind, f"{FORM} or an image/* type")
    limits = FormLimits(
        field=FIELD,
        files=1,
        file_bytes=settings.max_bytes,
        body_bytes=settings.max_bytes + FORM_OVERHEAD,
        stall_s=settings.request_timeout_s,
    )
    (image,) = await read_form(request, limits)
    if isinstance(image, RequestError):
        raise image
    return image


async def read_body(request: Request, max_bytes: int, stall_s: float) -> bytes:
    """A whole body.

    Raises:
        RequestError: too large, stalled, empty, or its sender hung up.
    """
    body = bytearray()
    async for chunk in _chunks(request, max_bytes, stall_s):
        body += chunk
    if not body:
        raise RequestError(EMPTY_BODY, "the request has no body; send an image")
    return bytes(body)


async def read_form(request: Request, limits: FormLimits) -> list[bytes | RequestError]:
    """The parts of a multipart form, at least one.

    Returns: in the place of a part that is too large, the error that says so.

    Raises:
        RequestError: malformed, too large as a whole, stalled, with too many or other parts than
            asked for, or its sender hung up.
    """
    content_type = request.headers["content-type"]
    boundary = plain_boundary(content_type) or parse_options_header(content_type)[1].get(
        b"boundary"
    )
    if not boundary:
        raise RequestError(MALFORMED_FORM, "the content type names no boundary")
    form = _Form(limits)
    parser = None
    try:
        async for chunk in _chunks(request, limits.body_bytes, limits.stall_s):
            if parser is None:
                file = plain_form(chunk, boundary, limits.field, limits.file_bytes)
                if file is not None:
                    return [file]
                parser = MultipartParser(boundary, form.callbacks())
            parser.write(chunk)
    except FormParserError as error:
        raise RequestError(MALFORMED_FORM, f"the form can't be parsed: {error}") from None
    if not form.ended:
        raise RequestError(MALFORMED_FORM, "the form ends before its closing boundary")
    if not form.files:
        raise RequestError(WRONG_FIELD, f"the form is empty; send the field {limits.field!r}")
    return [bytes(file) if isinstance(file, bytearray) else file for file in form.files]


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Awaits the work, and drops it when the client of a request whose body is read hangs up.

    Most requests are answered before the watch for that begins, and never pay for it.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
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


async def _chunks(request: Request, max_bytes: int, stall_s: float) -> AsyncIterator[bytes]:
    too_large = RequestError(TOO_MANY_BYTES, f"the body has more than {max_bytes:,} bytes")
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise too_large
    now = asyncio.get_running_loop().time
    body_timeout_s = Service.of(request).settings.body_timeout_s
    end = now() + body_timeout_s
    total = 0
    more = True
    while more:
        pause_s = min(stall_s, end - now())
        try:
            async with asyncio.timeout(pause_s):
                message = await request.receive()
        except TimeoutError:
            slow = f"the body did not arrive within {body_timeout_s:g} s"
            detail = slow if now() >= end else f"nothing arrived for {stall_s:g} s"
            raise RequestError(UPLOAD_STALLED, detail) from None
        if message["type"] == "http.disconnect":
            raise RequestError(CLIENT_GONE, "the client hung up")
        chunk: bytes = message.get("body", b"")
        total += len(chunk)
        if total > max_bytes:
            raise too_large
        yield chunk
        more = message.get("more_body", False)


def plain_boundary(content_type: str) -> bytes | None:
    """The boundary of a form whose content type is written as nearly all clients write it."""
    plain = _PLAIN_BOUNDARY.fullmatch(content_type)
    return plain[1].encode() if plain else None


def plain_form(body: bytes, boundary: bytes, field: str, max_bytes: int) -> bytes | None:
    """The file of a form of one part that is here whole, written as nearly all clients write it.

    None where it is anything else: the parser, ten times slower, then says what it is.
    """
    delimiter = b"--" + boundary
    end = len(body) - len(delimiter) - 6
    if not body.startswith(delimiter + b"\r\n") or not body.endswith(
        b"\r\n" + delimiter + b"--\r\n"
    ):
        return None
    head_end = body.find(b"\r\n\r\n", 0, end)
    # The first delimiter to follow the first must be the last.
    if head_end < 0 or body.find(delimiter, len(delimiter)) != end + 2:
        return None
    disposition = None
    for line in body[len(delimiter) + 2 : head_end].split(b"\r\n"):
        if line[:19].lower() == b"content-disposition":
            if disposition is not None:
                return None
            disposition = _PLAIN_DISPOSITION.fullmatch(line)
            if disposition is None or disposition[1] != field.encode():
                return None
        elif not _PLAIN_HEADER.match(line):
            return None
    content = body[head_end + 4 : end]
    return None if disposition is None or len(content) > max_bytes else content


class _Form:
    """Collects the parts that a parser finds, and refuses those that don't belong."""

    def __init__(self, limits: FormLimits) -> None:
        self.files: list[bytearray | RequestError] = []
        self.ended = False
        self._limits = limits
        self._header = bytearray()
        self._value = bytearray()
        self._name: bytes | None = None

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._part_begin,
            "on_header_begin": self._header_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._name = None

    def _header_begin(self) -> None:
        self._header, self._value = bytearray(), bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._name = parse_options_header(bytes(self._value))[1].get(b"name")

    def _headers_finished(self) -> None:
        wanted = self._limits.field
        if self._name is None:
            raise RequestError(MALFORMED_FORM, f"a part has no name; send the field {wanted!r}")
        if self._name != wanted.encode():
            name = self._name.decode(errors="replace")
            raise RequestError(WRONG_FIELD, f"there is a field {name!r}; send only {wanted!r}")
        if len(self.files) == self._limits.files:
            raise RequestError(
                TOO_MANY_FILES, f"more than {self._limits.files} file(s) in the field {wanted!r}"
            )
        self.files.append(bytearray())

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        file = self.files[-1]
        if isinstance(file, RequestError):
            return
        if len(file) + end - start > self._limits.file_bytes:
            detail = f"the file has more than {self._limits.file_bytes:,} bytes"
            self.files[-1] = RequestError(TOO_MANY_BYTES, detail)
        else:
            file += memoryview(data)[start:end]

    def _end(self) -> None:
        self.ended = True
