"""A lean HTTP/1.1 client, so that what is measured is the server."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

BOUNDARY = b"perceiver-bench"


@dataclass(frozen=True)
class Request:
    """A request ready to be sent."""

    path: str
    content: bytes  # head and body

    @classmethod
    def of(cls, method: str, path: str, content_type: str = "", body: bytes = b"") -> "Request":
        """From its parts; without a content type it has no body."""
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n"
        if content_type:
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        return cls(path, head.encode() + b"\r\n" + body)

    @classmethod
    def upload(cls, path: str, field: str, files: list[bytes]) -> "Request":
        """A form with some files."""
        head = b'\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n'
        parts = [b"--" + BOUNDARY + head % field.encode() + file + b"\r\n" for file in files]
        body = b"".join([*parts, b"--" + BOUNDARY + b"--\r\n"])
        return cls.of("POST", path, f"multipart/form-data; boundary={BOUNDARY.decode()}", body)


@dataclass(frozen=True)
class Response:
    """An answer."""

    status: int
    head: bytes
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Connection:
    """A connection that is kept alive; one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> Response:
        """The answer. A connection that was closed while idle is opened anew.

        Raises:
            OSError, EOFError: the connection broke under the request.
        """
        if self._streams is None or self._streams[0].at_eof() or self._streams[1].is_closing():
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(request.content)
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            at = lower.index(b"content-length:") + 15
            body = await reader.readexactly(int(lower[at : lower.index(b"\r", at)]))
            if b"\r\nconnection: close\r\n" in lower:
                await self.close()
            return Response(int(head[9:12]), head, body)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes it; it may be used again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
