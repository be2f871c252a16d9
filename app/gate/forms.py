"""Files in multipart forms."""

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

from multipart import parse_options_header
from starlette.requests import Request

from app.gate.bodies import content_type, read_body, read_chunks, unsupported
from app.gate.service import Service
from app.wire.problems import (
    MALFORMED_FORM,
    TOO_MANY_BYTES,
    TOO_MANY_FILES,
    WRONG_FIELD,
    RequestError,
)

FORM = "multipart/form-data"
FIELD = "file"  # of a form of one image
# Room in a form's body for boundaries and part headers.
FORM_OVERHEAD = 64 * 1024
# Bytes of a part's header; Content-Disposition and Content-Type take about 150.
PART_HEAD_BYTES = 8 * 1024
_VALUE = rb"[^\0\r\n]*(?:\r\n[\t ][^\0\r\n]*)*\r\n"  # may go on in further lines
_PART_HEAD = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:" + _VALUE + rb")*")
_PLAIN = re.compile(rb' form-data; name="([^"\\\r\n]*)"(?:; filename="[^"\\\r\n]*")?\r\n')
_DISPOSITION = re.compile(rb"^content-disposition:(" + _VALUE + rb")", re.IGNORECASE | re.MULTILINE)


class FormLimits(NamedTuple):
    """Bounds on a form."""

    field: str  # name that each part must have
    files: int  # parts, at most
    file_bytes: int  # of one part, at most
    body_bytes: int  # of the whole body, at most


async def read_image(request: Request, service: Service) -> bytes:
    """One image: the form's field `file`, or the body itself.

    Raises:
        RequestError: too large, malformed, of another type, stalled, or its sender hung up.
    """
    kind, parameters = content_type(request)
    settings = service.settings
    if kind != FORM:
        media_types = service.predictor.modality.media_types
        if any(fnmatchcase(kind, accepted) for accepted in media_types):
            return await read_body(request, settings.max_bytes)
        raise unsupported(kind, f"{FORM} or an {' or '.join(media_types)} type")
    limits = FormLimits(
        field=FIELD,
        files=1,
        file_bytes=settings.max_bytes,
        body_bytes=settings.max_bytes + FORM_OVERHEAD,
    )
    (image,) = await read_form(request, parameters.get("boundary"), limits)
    if isinstance(image, RequestError):
        raise image
    return image


async def read_form(
    request: Request, boundary: str | None, limits: FormLimits
) -> list[bytes | RequestError]:
    """The parts of a multipart form, at least one.

    Args:
        request: whose body is the form.
        boundary: that its content type names.
        limits: of the form.

    Returns: in the place of a part that is too large, the error that says so.

    Raises:
        RequestError: malformed, too large as a whole, stalled, with too many or other parts than
            asked for, or its sender hung up.
    """
    if not boundary:
        raise RequestError(MALFORMED_FORM, "the content type names no boundary")
    form = Form(boundary, limits)
    await read_chunks(request, limits.body_bytes, form.write)
    return form.end()


class Form:
    """A form that is being read: collects its files, and refuses what does not belong.

    What becomes of a form depends on its bytes alone, never on how they are cut into chunks. Each
    method raises RequestError where the form is malformed or over its limits.
    """

    def __init__(self, boundary: str, limits: FormLimits) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._limits = limits
        self._files: list[bytes | RequestError] = []
        self._rest = b"\r\n"  # not read yet; the form's first bytes may be the first delimiter
        self._in_head = self._in_part = self._is_complete = False
        self._part = bytearray()
        self._part_bytes = 0  # that came; no more are kept than a file may have

    def write(self, chunk: bytes) -> None:
        """Reads more of the body; not empty."""
        data, at = self._rest + chunk, 0
        while not self._is_complete:  # what follows the end means nothing
            if self._in_head:
                # The head begins with the end of the delimiter's line.
                end = data.find(b"\r\n\r\n", at, at + PART_HEAD_BYTES)
                if end < 0 and len(data) - at >= PART_HEAD_BYTES:
                    raise _malformed(f"a part's header has more than {PART_HEAD_BYTES:,} bytes")
                if end < 0:
                    break
                self._begin_part(field_of(data[at + 2 : end + 2]))
                at = end + 4
                continue
            found = data.find(self._delimiter, at)
            after = found + len(self._delimiter)
            if found < 0 or len(data) < after + 2:
                kept = found if found >= 0 else self._beginning(data, at)
                self._take(data[at:kept])
                at = kept
                break
            self._take(data[at:found])
            self._end_part(data[after : after + 2])
            at = after
        self._rest = data[at:]

    def end(self) -> list[bytes | RequestError]:
        """The files, once all of the body is written."""
        if not self._is_complete:
            raise _malformed("the form ends before its closing boundary")
        if not self._files:
            raise RequestError(
                WRONG_FIELD, f"the form is empty; send the field {self._limits.field!r}"
            )
        return self._files

    def _beginning(self, data: bytes, start: int) -> int:
        """Where the delimiter may begin whose rest has not come, or the end of the data."""
        place = data.rfind(b"\r", max(start, len(data) - len(self._delimiter)))
        return place if place >= 0 and self._delimiter.startswith(data[place:]) else len(data)

    def _begin_part(self, name: str) -> None:
        wanted = self._limits.field
        if not name:
            raise _malformed(f"a part has no name; send the field {wanted!r}")
        if name != wanted:
            name = name.encode("latin-1").decode(errors="replace")
            raise RequestError(WRONG_FIELD, f"there is a field {name!r}; send only {wanted!r}")
        if len(self._files) == self._limits.files:
            raise RequestError(
                TOO_MANY_FILES, f"more than {self._limits.files} file(s) in the field {wanted!r}"
            )
        self._in_head, self._in_part = False, True
        self._part, self._part_bytes = bytearray(), 0

    def _take(self, content: bytes) -> None:
        if self._in_part:
            self._part_bytes += len(content)
            if self._part_bytes <= self._limits.file_bytes:
                self._part += content

    def _end_part(self, line: bytes) -> None:
        """Ends a part, or what is in front of the first; the delimiter's line goes on so."""
        if self._in_part and self._part_bytes > self._limits.file_bytes:
            detail = f"the file has more than {self._limits.file_bytes:,} bytes"
            self._files.append(RequestError(TOO_MANY_BYTES, detail))
        elif self._in_part:
            self._files.append(bytes(self._part))
        self._in_part = False
        self._in_head, self._is_complete = line == b"\r\n", line == b"--"
        if not self._in_head and not self._is_complete:
            raise _malformed("a boundary's line goes on after the boundary")


def field_of(head: bytes) -> str:
    """The name of the field that a part's header tells; empty where it has none.

    Raises:
        RequestError: it is malformed.
    """
    if not _PART_HEAD.fullmatch(head):
        raise _malformed("a part's header is malformed")
    dispositions = _DISPOSITION.findall(head)
    if len(dispositions) != 1:
        raise _malformed("a part has not one Content-Disposition")
    plain = _PLAIN.fullmatch(dispositions[0])  # in a third of the time, of nearly all forms
    if plain:
        return plain[1].decode("latin-1")
    # Latin-1 has a character for each byte, so that no file's name is malformed.
    unfolded = dispositions[0].replace(b"\r\n", b"").decode("latin-1")
    kind, parameters = parse_options_header(unfolded)
    if kind != "form-data":
        raise _malformed("a part's Content-Disposition is not form-data")
    name: str = parameters.get("name", "")
    return name


def _malformed(detail: str) -> RequestError:
    return RequestError(MALFORMED_FORM, detail)
