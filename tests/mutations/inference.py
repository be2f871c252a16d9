"""Broken bodies of the Open Inference Protocol: JSON, tensors after it, compressed or not."""

import base64
import gzip
import json
import random
import struct
import zlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.conftest import encode
from tests.digits import load_digits
from tests.mutations.blind import EDGES, mutate_bytes, mutate_order

# What may stand for a number, a text, or anything; as JSON or nearly so.
_SCALARS = (
    *("0", "-0", "1", "-1", "255", "256", "1e2", "1.0", "1.5", "1e400", "-1e400", "0.1e-400"),
    *("NaN", "Infinity", "-Infinity", "null", "true", "false", "01", "+1", "0x10", "1_0", "."),
    *('""', '"a"', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\q"', '"\x01"', "'a'", '"'),
    *("[]", "{}", "[[]]", "[{}]", '{"":{}}', "[,]", "{,}", "", " ", "\ufeff", "/**/1"),
    *("9" * 400, "9" * 4301, "-" + "9" * 4301, "0." + "9" * 5000, "1e" + "9" * 400),
    *('"' + "a" * 10_000 + '"', '"' + "\\u0061" * 3000 + '"', "[" * 100 + "]" * 100),
    *("[" * 5000 + "]" * 5000, "[" * 20_000, '{"a":' * 3000 + "1" + "}" * 3000),
    *(str(number) for number in EDGES),
    *(str(2**63 - 1), str(2**63), str(-(2**63) - 1), str(2**64), str(10**19)),
)
_NAMES = (
    *("id", "name", "shape", "datatype", "data", "inputs", "outputs", "parameters"),
    *("binary_data_size", "binary_data", "binary_data_output", "timeout", "classification"),
    *("shared_memory_region", "sequence_id", "", "__proto__", "image", "picture", "\ud800"),
)
_WORDS = ('"image"', '"picture"', '"UINT8"', '"BYTES"', '"FP32"', '"INT64"', '"probabilities"')
_LENGTHS = ("", "0", "-1", "+1", " 1", "1 ", "1_0", "\xb2", "9" * 19, "9" * 5000, "1,1", "0x1", "a")
_MOST_BYTES = 2**21  # of JSON


class Body(NamedTuple):
    """What is sent to .../infer.

    Attributes:
        content: of the request.
        headers: that tell how it is to be read.
        size: bytes of the content when inflated.
    """

    content: bytes
    headers: list[tuple[bytes, bytes]]
    size: int


class _Members(list[tuple[str, Any]]):
    """A JSON object, whose members may come twice."""


@cache
def _images() -> NDArray[np.uint8]:
    return load_digits()[0][:64]


@cache
def _pictures() -> tuple[bytes, ...]:
    images = _images()
    return encode(images[0]), encode(images[1]), b"", b"no picture", encode(images[2], "JPEG")


def mutant(number: int) -> Body:
    """The broken body of this number: the same each time, on each machine."""
    rng = random.Random(number)
    tree, blob = _valid(rng)
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        tree = _mutate(tree, rng)
    text = _text(tree)[:_MOST_BYTES]
    if rng.random() < 0.1:
        text = mutate_bytes(text, rng, len(text))
    if rng.random() < 0.03:
        text = rng.choice((b"\xef\xbb\xbf" + text, b"\0" + text, text + text, text * 3, b""))
    headers = []
    if blob or rng.random() < 0.05:
        length = str(len(text) + rng.choice((0,) * 15 + (-1, 1, 100)))
        if rng.random() < 0.1:
            length = rng.choice(_LENGTHS)
        headers.append((b"inference-header-content-length", length.encode("latin-1")))
        if rng.random() < 0.2:
            blob = mutate_bytes(blob, rng, 8)
    content = text + blob
    size = len(content)
    if rng.random() < 0.15:
        if rng.random() < 0.05:  # much more of it; most of the times not too much
            content += b" " * rng.choice((10**5, 10**6, 10**6, 10**7, 7 * 10**7))
        size = len(content)
        content, encoding = _compressed(content, rng)
        headers.append((b"content-encoding", encoding))
    return Body(content, headers, size)


def _valid(rng: random.Random) -> tuple[Any, bytes]:
    """A request that holds to the protocol, and the bytes that follow its JSON."""
    rows = rng.choice((1, 1, 1, 2, 3, 64)) if rng.random() < 0.3 else 1
    blob = b""
    if rng.random() < 0.5:
        pixels = _images()[:rows]
        shape, datatype, name = [rows, 28, 28], "UINT8", "image"
        data: Any = pixels.tolist() if rng.random() < 0.3 else pixels.ravel().tolist()
        blob = pixels.tobytes()
    else:
        files = [rng.choice(_pictures()[: rng.choice((2, 5))]) for _ in range(rows)]
        shape, datatype, name = [rows], "BYTES", "picture"
        data = [base64.b64encode(file).decode() for file in files]
        blob = b"".join(struct.pack("<I", len(file)) + file for file in files)
    tensor = _Members([("name", name), ("shape", shape), ("datatype", datatype)])
    if rng.random() < 0.4:
        tensor.append(("parameters", _Members([("binary_data_size", len(blob))])))
    else:
        tensor.append(("data", data))
        blob = b""
    request = _Members([("inputs", [tensor])])
    if rng.random() < 0.3:
        request.append(("id", "a"))
    if rng.random() < 0.3:
        flags = [("binary_data_output", rng.random() < 0.5), ("timeout", rng.choice((0, 10**7)))]
        request.append(("parameters", _Members(flags)))
    if rng.random() < 0.3:
        wanted = [_Members([("name", name)]) for name in ("novelty", "probabilities", "digit")]
        request.append(("outputs", wanted))
    return request, blob


def _mutate(node: Any, rng: random.Random) -> Any:
    """Changes one place of the tree; its top less often than what is below."""
    if isinstance(node, list) and node and rng.random() < 0.85:
        at = rng.randrange(len(node))
        if isinstance(node, _Members):
            name, value = node[at]
            if rng.random() < 0.1:
                node[at] = rng.choice(_NAMES), value
            else:
                node[at] = name, _mutate(value, rng)
        else:
            node[at] = _mutate(node[at], rng)
        return node
    if isinstance(node, list) and rng.random() < 0.8:
        if isinstance(node, _Members):
            others: list[Any] = [(name, _Raw(rng.choice(_SCALARS))) for name in _NAMES]
        else:
            others = [_Raw(rng.choice(_SCALARS)), [], _Members()]
        mutate_order(node, rng, others)
        if rng.random() < 0.005:
            node[:] = [value for value in node[:4] if len(str(value)) < 40] * 30_000
        return node
    return rng.choice(
        (
            lambda: _Raw(rng.choice(_SCALARS)),
            lambda: _Raw(rng.choice(_WORDS)),
            lambda: [node] * rng.choice((1, 2, 3)),
            lambda: _Members([(rng.choice(_NAMES), node)]),
            lambda: _Raw(json.dumps(_text(node).decode("latin-1"))),
        )
    )()


class _Raw(str):
    """Text that stands in the JSON as it is."""

    __slots__ = ()


def _text(node: Any) -> bytes:
    return _written(node).encode(errors="surrogatepass")


def _written(node: Any) -> str:
    if isinstance(node, _Raw):
        return node
    if isinstance(node, _Members):
        members = (json.dumps(name) + ":" + _written(value) for name, value in node)
        return "{" + ",".join(members) + "}"
    if isinstance(node, list):
        if {int}.issuperset(map(type, node)):
            return str(node)
        return "[" + ",".join(map(_written, node)) + "]"
    return json.dumps(node)


def _compressed(content: bytes, rng: random.Random) -> tuple[bytes, bytes]:
    """The content in an encoding, or nearly so, and the encoding's name."""
    encoding = rng.choice((b"gzip", b"deflate"))
    pressed = gzip.compress(content, 1) if encoding == b"gzip" else zlib.compress(content, 1)
    action = rng.random()
    if action < 0.1:
        pressed = mutate_bytes(pressed, rng, 20)
    elif action < 0.2:
        pressed = pressed[: rng.randrange(len(pressed))]
    elif action < 0.3:
        pressed += rng.choice((b"\0", pressed, content[:100]))
    elif action < 0.4:
        encoding = rng.choice((b"gzip, gzip", b"identity", b"br", b"", b"x-gzip", b"GZIP", b"\xff"))
    elif action < 0.5:
        pressed = gzip.compress(pressed, 1)
    elif action < 0.6:
        pressed = zlib.compress(content)[2:-4]  # deflate without its wrapper
    return pressed, encoding
