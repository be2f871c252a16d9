"""Broken image files: seeds of every format and coding, and mutations of them, by number."""

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from tests.conftest import encode
from tests.digits import load_digits

# Numbers at the edges of what fields of a header hold.
EDGES = (
    0,
    1,
    2,
    7,
    8,
    16,
    32,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**32 - 1,
)


@cache
def seeds() -> tuple[bytes, ...]:
    """Valid files: each format in each of its codings, small and larger, plain and noisy."""
    seven = Image.fromarray(load_digits()[0][0])
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a digit"
    files = []
    for picture in (seven, noise):
        colour, grey = picture.convert("RGB"), picture.convert("L")
        palette = colour.quantize(16)
        files += [
            encode(grey),
            encode(grey.convert("1")),
            encode(grey.convert("I;16")),
            encode(grey.convert("LA")),
            encode(colour.convert("RGBA"), exif=exif),
            encode(palette, transparency=3),
            encode(colour, save_all=True, append_images=[colour.rotate(90)]),
            encode(colour, "JPEG", exif=exif),
            encode(colour, "JPEG", progressive=True, quality=30),
            encode(colour.convert("CMYK"), "JPEG"),
            encode(grey, "JPEG", restart_marker_blocks=1),
            encode(grey, "GIF"),
            encode(palette, "GIF", transparency=1),
            encode(grey, "GIF", save_all=True, append_images=[grey.rotate(90)], loop=0),
            encode(grey, "BMP"),
            encode(grey.convert("1"), "BMP"),
            encode(colour, "BMP"),
            encode(palette, "BMP"),
            encode(colour, "WEBP"),
            encode(colour.convert("RGBA"), "WEBP", lossless=True, exif=exif),
            encode(colour, "WEBP", save_all=True, append_images=[colour.rotate(90)]),
            encode(grey, "TIFF"),
            encode(grey.convert("I;16"), "TIFF"),
            encode(grey.convert("F"), "TIFF"),
            encode(colour.convert("CMYK"), "TIFF"),
            encode(colour, "TIFF", compression="tiff_lzw"),
            encode(colour, "TIFF", compression="tiff_adobe_deflate"),
            encode(colour, "TIFF", compression="packbits"),
            encode(colour, "TIFF", compression="jpeg"),
            encode(grey.convert("1"), "TIFF", compression="group4"),
            encode(grey, "TIFF", save_all=True, append_images=[grey.rotate(90)]),
        ]
    return tuple(files)


def mutant(number: int) -> bytes:
    """The broken file of this number: the same each time, on each machine."""
    rng = random.Random(number)
    content = bytearray(rng.choice(seeds()))
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        rng.choice(_MUTATIONS)(content, rng)
    if content.startswith(b"\x89PNG") and rng.random() < 0.7:
        return _with_right_checksums(bytes(content))
    return bytes(content)


def _at(content: bytearray, rng: random.Random) -> int:
    """A place in the file, most often near its head, where the structure is."""
    limit = len(content) if rng.random() < 0.5 else min(len(content), 120)
    return rng.randrange(max(1, limit))


def _flip(content: bytearray, rng: random.Random) -> None:
    if content:
        content[_at(content, rng)] ^= 1 << rng.randrange(8)


def _noise(content: bytearray, rng: random.Random) -> None:
    at = _at(content, rng)
    content[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(1, 9))


def _edge(content: bytearray, rng: random.Random) -> None:
    at, value = _at(content, rng), rng.choice(EDGES)
    size = rng.choice((1, 2, 4))
    order = rng.choice(("little", "big"))
    content[at : at + size] = (value % 256**size).to_bytes(size, order)


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[_at(content, rng) :]


def _drop(content: bytearray, rng: random.Random) -> None:
    at = _at(content, rng)
    del content[at : at + rng.randrange(1, 40)]


def _repeat(content: bytearray, rng: random.Random) -> None:
    at = _at(content, rng)
    content[at:at] = content[at : at + rng.randrange(1, 200)] * rng.randrange(1, 20)


def _splice(content: bytearray, rng: random.Random) -> None:
    other = rng.choice(seeds())
    start = rng.randrange(len(other))
    at = _at(content, rng)
    content[at : at + rng.randrange(200)] = other[start : start + rng.randrange(400)]


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _flip,
    _noise,
    _edge,
    _edge,
    _cut,
    _drop,
    _repeat,
    _splice,
)


def _with_right_checksums(content: bytes) -> bytes:
    """A PNG whose chunks pass their check, so that what is wrong in them is looked at."""
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            break
        parts += [content[at:end], struct.pack(">I", zlib.crc32(content[at + 4 : end]))]
        at = end + 4
    return b"".join([*parts, content[at:]])
