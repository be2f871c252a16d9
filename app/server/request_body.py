"""Where a request's body ends (RFC 9112, 6 and 7.1), however it is cut into segments."""

import re
from collections.abc import Callable
from typing import Protocol

from app.wire.problems import HEAD_TOO_LARGE, MALFORMED_REQUEST, RequestError

# Bytes of a body for each byte of the chunks' own beyond those that a head may have.
BYTES_PER_OVERHEAD = 16

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[\t ]*;[\t -~\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*)?\r\n")


class Body(Protocol):
    """A body that is being read."""

    def read(self, data: bytes, take: Callable[[bytes], None]) -> bytes | None:
        """Reads what has come; what follows the body, or None: there is more of it to come.

        Args:
            data: that came.
            take: called with each piece of the body; none is empty.

        Raises:
            RequestError: it is malformed.
        """


class Sized:
    """A body of as many bytes as its head announced.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, data: bytes, take: Callable[[bytes], None]) -> bytes | None:
        """See `Body`."""
        piece = data[: self._left]
        if piece:
            self._left -= len(piece)
            take(piece)
        return None if self._left else data[len(piece) :]


class Chunked:
    """A body in chunks. Extensions and trailers are dropped: RFC 9110, 6.5.1 lets nobody obey them.

    Args:
        max_overhead: bytes of lines between chunks and of trailers, at most, besides one for every
            16 of the body.
    """

    def __init__(self, max_overhead: int) -> None:
        self._max_overhead = max_overhead
        self._overhead = 0
        self._bytes = 0
        self._left = 0  # of the chunk
        self._begun: bytes = b""  # a line whose end has not come
        self._line = self._size

    def read(self, data: bytes, take: Callable[[bytes], None]) -> bytes | None:
        """See `Body`."""
        data, self._begun, at = self._begun + data, b"", 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                self._bytes += len(piece)
                at += len(piece)
                take(piece)
                continue
            end = data.find(b"\n", at) + 1
            room = self._max_overhead + self._bytes // BYTES_PER_OVERHEAD - self._overhead
            if (end or len(data)) - at > room:
                raise RequestError(
                    HEAD_TOO_LARGE, "the body has too much around its chunks, or trailers"
                )
            if not end:
                self._begun = data[at:]
                break
            self._overhead += end - at
            if self._line(data[at:end]):
                return data[end:]
            at = end
        return None

    def _size(self, line: bytes) -> bool:
        """Begins a chunk, or the trailers; False: the body goes on."""
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise RequestError(MALFORMED_REQUEST, "a chunk of the body has no size")
        self._left = int(match[1], 16)
        self._line = self._end if self._left else self._trailer
        return False

    def _end(self, line: bytes) -> bool:
        """Ends a chunk."""
        if line != b"\r\n":
            raise RequestError(MALFORMED_REQUEST, "a chunk of the body is longer than its size")
        self._line = self._size
        return False

    def _trailer(self, line: bytes) -> bool:
        """Drops a trailer; True: it is the empty line after them."""
        if not _TRAILER.fullmatch(line):
            raise RequestError(MALFORMED_REQUEST, "what follows the body are no trailers")
        return line == b"\r\n"
