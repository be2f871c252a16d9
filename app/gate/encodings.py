"""Bodies that come compressed (RFC 9110, section 8.4): inflated within the bounds of any body."""

import asyncio
import zlib
from collections.abc import Callable

from starlette.requests import Request

from app.gate.bodies import read_body
from app.gate.service import TAKE
from app.inference.batcher import DeadlineExceededError
from app.wire.problems import MALFORMED_BODY, TOO_MANY_BYTES, UNSUPPORTED_ENCODING, RequestError

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_INPUT = 64 * 1024  # compressed bytes at a time
_OUTPUT = 2**20  # inflated bytes at a time: 3 ms


async def read_inflated(request: Request, max_bytes: int, timeout_s: float) -> bytes | bytearray:
    """A whole body, inflated if its Content-Encoding says so.

    Args:
        request: whose body is not read yet.
        max_bytes: of the body, as it comes and inflated.
        timeout_s: for inflating.

    Raises:
        RequestError: as `read_body`; or the encoding is another, or the body is not so encoded.
        UploadsFullError: the uploads under way take all room.
        DeadlineExceededError: inflating takes too long.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in (*_WINDOW_BITS, "identity"):
        refusal = f"the content encoding is {encoding!r:.40}; send gzip, deflate or none"
        raise RequestError(UNSUPPORTED_ENCODING, refusal)
    body = await read_body(request, max_bytes)
    if encoding == "identity":
        return body
    take: Callable[[int], None] = request.scope[TAKE]
    deadline = asyncio.get_running_loop().time() + timeout_s
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    content = bytearray()
    try:
        for start in range(0, len(body), _INPUT):
            rest = body[start : start + _INPUT]
            while rest and not stream.eof:
                piece = await asyncio.to_thread(stream.decompress, rest, _OUTPUT)
                rest = stream.unconsumed_tail
                take(len(piece))
                content += piece
                if len(content) > max_bytes:
                    what = f"the body inflates to more than {max_bytes:,} bytes"
                    raise RequestError(TOO_MANY_BYTES, what)
                if asyncio.get_running_loop().time() > deadline:
                    raise DeadlineExceededError("the body was not inflated in time")
    except zlib.error as error:
        raise RequestError(MALFORMED_BODY, f"the body is not {encoding}: {error}") from None
    if not stream.eof or stream.unused_data:
        raise RequestError(MALFORMED_BODY, f"the body is not one whole {encoding} stream")
    return content
