"""Broken streams of HTTP requests: lines, heads, bodies, chunks, trailers, forms and pipelines."""

import itertools
import random
from functools import cache
from typing import NamedTuple

from tests.conftest import encode
from tests.digits import load_digits
from tests.mutations import inference
from tests.mutations.blind import EDGES, mutate_bytes, mutate_order

BOUNDARY = b"c46f9d9e6b2d4f0f"
# Ends a stream: where it is understood as a request, the connection closes after its answer.
LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

_METHODS = (
    *(b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"CONNECT"),
    *(b"get", b"", b"PRI", b"GE T", b"M-SEARCH", b"BREW", b"G" * 5000, b"\0", b"\xc3\xa4"),
)
_TARGETS = (
    *(b"/predict", b"/predict/batch", b"/read", b"/metadata", b"/metrics", b"/health/ready", b"/"),
    *(b"/v2", b"/v2/models/perceiver-mnist", b"/v2/models/perceiver-mnist/infer", b"/openapi.json"),
    *(b"*", b"", b"predict", b"//predict", b"/../predict", b"/%2e%2e/%00", b"/%", b"/%ff%fe", b"?"),
    *(
        b"http://x/predict",
        b"http://",
        b"http://[",
        b"http://[::1]:99999/",
        b"x:443",
        b"/ /predict",
    ),
    *(b"/predict?" + b"a=b&" * 1000, b"/" + b"a" * 70_000, b"/" * 5000, b"/predict#x", b"/\x01"),
    *(b"/docs", b"/docs/assets/../x", b"/v2/models/%2F/infer", b"/v2/models/\xff", b"/problems/x"),
)
_VERSIONS = (
    *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/9.9", b"HTTP/1"),
    *(b"", b"http/1.1", b"HTTP/1.1 ", b"HTTP/11.1", b"RTSP/1.0", b"ICE/1.0", b"HTTP/1.1\0"),
)
_HEADERS = (
    *((b"Host", b"x"), (b"Host", b""), (b"Host", b"a b"), (b"Host", b"x:99999"), (b"host ", b"x")),
    *((b"Content-Length", str(number).encode()) for number in (*EDGES, -1, 2**63, 2**64, 10**30)),
    *(
        (b"Content-Length", value)
        for value in (b"+1", b"1, 1", b"1 1", b"0x1", b"", b"\xb2", b"00")
    ),
    *((b"Transfer-Encoding", value) for value in (b"chunked", b"identity", b"gzip", b"xchunked")),
    *((b"Transfer-Encoding", value) for value in (b"gzip, chunked", b"chunked, chunked", b"")),
    *((b"Transfer-Encoding", b"chunked, identity"), (b"Transfer-Encoding ", b"chunked")),
    *((b"Connection", value) for value in (b"close", b"keep-alive", b"upgrade", b"x, close", b"")),
    *((b"Upgrade", value) for value in (b"h2c", b"websocket", b"TLS/1.0")),
    *((b"Expect", b"100-continue"), (b"Expect", b"200-ok"), (b"TE", b"trailers")),
    *((b"Content-Type", b"image/png"), (b"Content-Type", b"application/json"), (b"X-A", b"\xff")),
    *((b"Content-Type", b""), (b"Content-Type", b"multipart/form-data")),
    *((b"Content-Type", b"multipart/form-data; boundary=" + b) for b in (b"", b'"', b"x" * 300)),
    *((b"Content-Type", b'multipart/form-data; boundary="a\\"b"; boundary=c'), (b"", b"x")),
    *((b"Content-Type", b"multipart/form-data; boundary=\xe4"), (b"Content-Type", b";" * 5000)),
    *((b"Content-Encoding", b"gzip"), (b"Content-Encoding", b"deflate"), (b"Accept", b"*/*;q=x")),
    *((b"X-Request-ID", b"a" * 200), (b"X-Request-ID", b"\x7f"), (b"Authorization", b"Bearer")),
    *((b"traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"), (b"traceparent", b"00-")),
    *(
        (b"X-Long", b"a" * 70_000),
        (b"A" * 3000, b"b"),
        (b"X Y", b"z"),
        (b"X\0", b"\0"),
        (b"X", b""),
    ),
    *((b"X-Folded", b"a\r\n b"), (b"X-CR", b"a\rb"), (b"X-LF", b"a\nb"), (b"Range", b"bytes=0-")),
    *((b"If-None-Match", b"*"), (b"Origin", b"https://a.example"), (b"Cookie", b"a=" + b"b" * 999)),
    *((b"Inference-Header-Content-Length", b"9" * 30), (b"X-Forwarded-For", b"a, b")),
)
_PART_HEADERS = (
    *((b"Content-Type", b"image/png"), (b"Content-Type", b"text/html"), (b"X", b"y" * 5000)),
    *((b"Content-Disposition", b"form-data"), (b"Content-Disposition", b'form-data; name="x"')),
    *((b"Content-Disposition", b"attachment"), (b"Content-Disposition", b'form-data; name="')),
    *((b"Content-Disposition", b"form-data; name=file"), (b"", b""), (b"A", b""), (b"X", b"\r")),
    *((b"Content-Disposition", b"form-data; name=\"file\"; filename*=utf-8''%ff"),),
    *(
        (b"Content-Transfer-Encoding", b"base64"),
        (b"Content-Length", b"99999999999"),
        (b"\xff", b""),
    ),
)
_LINE_ENDS = (b"\r\n",) * 30 + (
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"",
    b" \r\n",
    b"\r\n ",
    b"\0\r\n",
)
_CHUNK_SIZES = (
    *(b"0", b"00", b"-1", b"+1", b"1 ", b" 1", b"0x1", b"g", b"", b"f" * 15, b"f" * 16, b"f" * 17),
    *(b"1;a=b", b'1;a="' + b"x" * 5000, b"1" + b";x" * 3000, b"7fffffffffffffff", b"1;\r"),
)

_MOST_BYTES = 2**20

Headers = list[tuple[bytes, bytes]]


class Stream(NamedTuple):
    """What one client sends over a connection.

    Attributes:
        content: all of it.
        cuts: places where TCP cuts it in pieces.
    """

    content: bytes
    cuts: tuple[int, ...]

    @property
    def pieces(self) -> list[bytes]:
        """The content, cut."""
        places = (0, *self.cuts, len(self.content))
        return [self.content[a:b] for a, b in itertools.pairwise(places)]


@cache
def _pictures() -> tuple[bytes, ...]:
    images = load_digits()[0]
    return encode(images[0]), encode(images[1], "JPEG"), encode(images[2], "GIF"), b"", b"\r\n--"


def mutant(number: int) -> Stream:
    """The broken stream of this number: the same each time, on each machine."""
    rng = random.Random(number)
    requests = [_request(rng, number) for _ in range(rng.choice((1, 1, 1, 2, 3, 20)))]
    if rng.random() < 0.1:
        mutate_order(requests, rng)
    content = b"".join(requests)
    if rng.random() < 0.25:
        content = mutate_bytes(content, rng, 300)
    content = content[:_MOST_BYTES] + LAST
    many = rng.choice((0, 1, 1, 2, 5, 40))
    cuts = {rng.randrange(len(content)) for _ in range(many)}
    if rng.random() < 0.1:
        start = rng.randrange(len(content))
        cuts |= set(range(start, min(len(content), start + 60)))
    return Stream(content, tuple(sorted(cuts - {0})))


def _request(rng: random.Random, number: int) -> bytes:
    method, target, headers, body = _valid(rng, number)
    version = b"HTTP/1.1"
    if rng.random() < 0.1:
        method = rng.choice(_METHODS)
    if rng.random() < 0.15:
        target = rng.choice(_TARGETS)
    if rng.random() < 0.05:
        version = rng.choice(_VERSIONS)
    framed = _framed(body, headers, rng)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 5))):
        mutate_order(headers, rng, _HEADERS)
    ends = _LINE_ENDS if rng.random() < 0.2 else (b"\r\n",)
    lines = [b" ".join((method, target, version)), *_lines(headers, rng), b""]
    return b"".join(line + rng.choice(ends) for line in lines) + framed


def _lines(headers: Headers, rng: random.Random) -> list[bytes]:
    colons = (b": ",) * 30 + (b":", b" : ", b"", b":\t", b"\0:")
    return [name + rng.choice(colons) + value for name, value in headers]


def _valid(rng: random.Random, number: int) -> tuple[bytes, bytes, Headers, bytes | None]:
    """Method, target, headers but those of the framing, and the body, None where there is none."""
    headers = [(b"Host", b"x"), (b"User-Agent", b"fuzz")]
    kind = rng.randrange(6)
    if kind == 0:
        return b"GET", rng.choice(_TARGETS[:9]), headers, None
    if kind == 1:
        body = inference.mutant(number)
        headers += [(b"Content-Type", b"application/json"), *body.headers]
        return b"POST", b"/v2/models/perceiver-mnist/infer", headers, body.content
    if kind == 2:
        headers.append((b"Content-Type", b"image/png"))
        return b"POST", rng.choice(_TARGETS[:2]), headers, rng.choice(_pictures())
    headers.append((b"Content-Type", b"multipart/form-data; boundary=" + BOUNDARY))
    many = kind == 3
    return b"POST", b"/predict/batch" if many else b"/predict", headers, _form(many, rng)


def _form(many: bool, rng: random.Random) -> bytes:
    """A form, most often broken."""
    field = b"files" if many else b"file"
    delimiter = b"--" + BOUNDARY
    parts = []
    for _ in range(rng.choice((1, 2, 3, 70)) if many else 1):
        headers = [(b"Content-Disposition", b'form-data; name="%s"; filename="a.png"' % field)]
        headers.append((b"Content-Type", b"image/png"))
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            mutate_order(headers, rng, _PART_HEADERS)
        ends = _LINE_ENDS if rng.random() < 0.1 else (b"\r\n",)
        lines = [delimiter, *_lines(headers, rng), b""]
        head = b"".join(line + rng.choice(ends) for line in lines)
        parts.append(head + rng.choice(_pictures()) + b"\r\n")
    if rng.random() < 0.2:
        mutate_order(parts, rng, (b"preamble\r\n", delimiter + b"--\r\n", b"\r\n" * 100))
    end = (delimiter + b"--\r\n", delimiter + b"--", b"", delimiter, delimiter + b"--\r\nepilogue")
    form = b"".join(parts) + rng.choice(end[: rng.choice((1, 1, 1, 5))])
    return mutate_bytes(form, rng, 200) if rng.random() < 0.1 else form


def _framed(body: bytes | None, headers: Headers, rng: random.Random) -> bytes:
    """The body as it is sent, and the headers that tell how."""
    if body is None:
        return b""
    if rng.random() < 0.6:
        length = len(body) + (rng.choice((-1, 1, 2, 100, -100)) if rng.random() < 0.1 else 0)
        headers.append((b"Content-Length", str(length).encode()))
        return body
    headers.append((b"Transfer-Encoding", b"chunked"))
    chunks, at = [], 0
    while at < len(body) and len(chunks) < 50:
        end = at + rng.choice((1, 2, 50, 1000, 10**6))
        data = body[at:end]
        size = b"%x" % len(data)
        if rng.random() < 0.02:
            size = rng.choice((*_CHUNK_SIZES, size + b";a=b", b"000" + size))
        chunks.append(size + b"\r\n" + data + b"\r\n")
        at = end
    if rng.random() < 0.1:
        mutate_order(chunks, rng, chunks)
    trailers: Headers = []
    for _ in range(rng.choice((0, 0, 0, 1, 5, 100)) if rng.random() < 0.3 else 0):
        trailers.append(rng.choice(_HEADERS))
    ends = _LINE_ENDS if rng.random() < 0.1 else (b"\r\n",)
    tail = b"".join(line + rng.choice(ends) for line in [b"0", *_lines(trailers, rng), b""])
    return b"".join(chunks) + tail
