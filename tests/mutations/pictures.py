"""Broken image files: seeds of every format and coding, taken apart, changed and put together."""

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from tests import attacks
from tests.conftest import encode
from tests.digits import load_digits
from tests.mutations.blind import edge, mutate_bytes, mutate_order

# Sides of a picture that a header may announce; the product of most is within the limit.
_SIDES = (0, 1, 2, 7, 28, 29, 255, 256, 500, 1000, 4096, 5000, 16383, 32768, 65535, 25_000_000)
# Files of `tests.attacks` with little in them.
_ATTACKS = (
    *(
        "25 MP of grey, PNG",
        "25 MP in one row, PNG",
        "12 MP in one column, PNG",
        "two headers, PNG",
    ),
    *("25 MP of a palette with transparency, PNG", "8 colour profiles, PNG", "5,000 chunks, PNG"),
    *("16 MP, WebP", "16 MP in a narrow column, WebP", "25 MP, GIF", "25 MP of fax, TIFF"),
    *("0.25 MP in 100 scans, JPEG", "25 MP in 20 scans, JPEG", "20,000 strips, TIFF"),
    *("a first chunk that lies, PNG", "1.8 MB of runs, BMP"),
)
# One input in so many is made of one of them: to decode it takes as long as a thousand others.
_ATTACK_EVERY = 1500
_TIFF_TYPES = struct.Struct("<HHII")  # of an entry: tag, type, count, value or place


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
    files += [
        attacks.flat_png(28, 28, interlace=1),
        attacks.bitmap_runs(28, 28, b"\x02\x07\0\x04abcd\0\2\3\1\0\0\0\1"),
        attacks.tiff_strips(28),
        attacks.gif_blocks(3),
        attacks.scans(3, 28, empty=True),
        attacks.chunks(3, b"iCCP", attacks.profile(1000)),
    ]
    return tuple(files)


@cache
def costly_seeds() -> tuple[bytes, ...]:
    """Files that take long to decode; to make them takes seconds and some memory."""
    return tuple(attacks.attack(name) for name in _ATTACKS)


def mutant(number: int) -> bytes:
    """The broken file of this number: the same each time, on each machine."""
    rng = random.Random(number)
    content = rng.choice(costly_seeds() if rng.randrange(_ATTACK_EVERY) == 0 else seeds())
    shape = _shape_of(content)
    if rng.random() < 0.25 or shape is None:
        content = mutate_bytes(content, rng)
        return _checksummed(content) if rng.random() < 0.7 else content
    parts, others = shape.split(content), _parts_of_all(shape.name)
    # Without its start it is hardly looked at.
    start = [parts.pop(0)] if rng.random() < 0.85 else []
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        action = rng.random()
        if action < 0.4 or not parts:
            mutate_order(parts, rng, others, most=3000)
            continue
        at = rng.randrange(len(parts))
        if action < 0.7:
            parts[at] = mutate_bytes(parts[at], rng, 16)
        elif action < 0.9:
            parts[at] = _lie(parts[at], rng, shape)
        else:
            _resize(parts, rng, shape)
    return shape.join(start + parts, rng)


class _Sides(NamedTuple):
    """Where a part tells how large the picture is.

    Attributes:
        start: of such a part, or what is near it.
        at: place in the part.
        size: bytes of each number.
        count: numbers, next to each other.
    """

    start: bytes
    at: int
    size: int
    count: int = 2


class _Shape(NamedTuple):
    """How the files of a format are put together.

    Attributes:
        name: of the format.
        order: of its numbers' bytes.
        split: file -> parts.
        join: parts -> file, with or without the sums that a reader checks.
        sides: of its parts.
    """

    name: str
    order: Literal["big", "little"]
    split: Callable[[bytes], list[bytes]]
    join: Callable[[list[bytes], random.Random], bytes]
    sides: tuple[_Sides, ...]


@cache
def _parts_of_all(name: str) -> tuple[bytes, ...]:
    shape = _SHAPES[name]
    return tuple(part for file in seeds() if _shape_of(file) is shape for part in shape.split(file))


def _shape_of(content: bytes) -> _Shape | None:
    for name, start in _STARTS.items():
        if content.startswith(start):
            return _SHAPES[name]
    return None


def _lie(part: bytes, rng: random.Random, shape: _Shape) -> bytes:
    """A field of the part's head says something else: mostly a size or a count."""
    size = rng.choice((1, 2, 2, 4, 4))
    at = rng.choice((0, 0, 2, 4, 4, 8, rng.randrange(32)))
    at = min(at, max(0, len(part) - size))
    value = int.from_bytes(part[at : at + size], shape.order) + rng.choice((-2, -1, 1, 2, 100))
    number = (value % 256**size).to_bytes(size, shape.order)
    if rng.random() < 0.5:
        number = edge(rng, size, shape.order)
    return part[:at] + number + part[at + size :]


def _resize(parts: list[bytes], rng: random.Random, shape: _Shape) -> None:
    """The picture, or a frame of it, announces another size."""
    for index, part in enumerate(parts):
        for start, at, size, count in shape.sides:
            if start in part[:8] and rng.random() < 0.8:
                kept = rng.randrange(count) if count > 1 and rng.random() < 0.3 else -1
                for place in range(at, at + size * count, size):
                    if place != at + size * kept:
                        side = (rng.choice(_SIDES) % 256**size).to_bytes(size, shape.order)
                        part = part[:place] + side + part[place + size :]
                parts[index] = part
        if part[4:8] == b"IDAT" and rng.random() < 0.5:  # and has pixels for it
            data = zlib.compress(bytes(rng.choice((0, 1, 785, 10_000, 2_000_000))))
            parts[index] = struct.pack(">I", len(data)) + b"IDAT" + data + bytes(4)


def _split_png(content: bytes) -> list[bytes]:
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        end = at + 12 + struct.unpack_from(">I", content, at)[0]
        parts.append(content[at:end])
        at = end
    return parts


def _join_png(parts: list[bytes], rng: random.Random) -> bytes:
    content = b"".join(parts)
    return _checksummed(content) if rng.random() < 0.9 else content


def _checksummed(content: bytes) -> bytes:
    """A PNG whose chunks pass their check, so that what is wrong in them is looked at."""
    if not content.startswith(b"\x89PNG"):
        return content
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            break
        parts += [content[at:end], struct.pack(">I", zlib.crc32(content[at + 4 : end]))]
        at = end + 4
    return b"".join([*parts, content[at:]])


def _split_jpeg(content: bytes) -> list[bytes]:
    """Segments; what a scan holds is cut at its restarts."""
    parts, at = [content[:2]], 2
    while at + 4 <= len(content):
        marker = content[at + 1]
        alone = marker == 0xD9 or 0xD0 <= marker <= 0xD7
        end = at + 2 + (0 if alone else struct.unpack_from(">H", content, at + 2)[0])
        while end < len(content) and not (
            content[end] == 0xFF and content[end + 1 : end + 2] > b"\0"
        ):
            end += 1
        parts.append(content[at:end])
        at = end
    return [*parts, content[at:]]


def _split_gif(content: bytes) -> list[bytes]:
    """Screen and colours, extensions, frames, and the trailer."""
    at = 13 + (3 << ((content[10] & 7) + 1) if content[10] & 0x80 else 0)
    parts = [content[:at]]
    while at < len(content) and content[at] in (0x21, 0x2C):
        start = at
        if content[at] == 0x21:
            at += 2
        else:
            flags = content[at + 9]
            at += 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
        while content[at]:
            at += content[at] + 1
        at += 1
        parts.append(content[start:at])
    return [*parts, content[at:]]


def _split_bmp(content: bytes) -> list[bytes]:
    """File header, picture header, palette, rows."""
    pixels, size = struct.unpack_from("<II", content, 10)
    row = max(1, (len(content) - pixels) // 4)
    rows = [content[at : at + row] for at in range(pixels, len(content), row)]
    return [content[:14], content[14 : 14 + size], content[14 + size : pixels], *rows]


def _split_webp(content: bytes) -> list[bytes]:
    """Chunks, those of a frame too."""
    parts, at = [content[:12]], 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        end = at + 24 if name == b"ANMF" else at + 8 + (size + 1 & ~1)
        parts.append(content[at:end])
        at = end
    return parts


def _join_webp(parts: list[bytes], rng: random.Random) -> bytes:
    content = b"".join(parts)
    if rng.random() < 0.8:
        content = content[:4] + struct.pack("<I", max(0, len(content) - 8)) + content[8:]
    return content


def _split_tiff(content: bytes) -> list[bytes]:
    """The file without its first directory's place, then the entries of that directory."""
    start = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, start)[0]
    entries = [content[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    return [content, *entries]


def _join_tiff(parts: list[bytes], rng: random.Random) -> bytes:
    """The file with a new directory at its end, which may name a next one."""
    content = max(parts, key=len, default=b"")
    entries = [part for part in parts if part is not content]
    if rng.random() < 0.2:
        entries.append(_TIFF_TYPES.pack(*(int.from_bytes(edge(rng, n)) for n in (2, 2, 4, 4))))
    if rng.random() < 0.7:
        entries.sort(key=lambda entry: entry[1::-1])
    place = len(content)
    following = rng.choice((0, 0, 0, place, 8, int.from_bytes(edge(rng, 4))))
    count = len(entries) if rng.random() < 0.9 else int.from_bytes(edge(rng, 2))
    directory = struct.pack("<H", count & 0xFFFF) + b"".join(entries) + struct.pack("<I", following)
    return content[:4] + struct.pack("<I", place) + content[8:] + directory


def _joined(parts: list[bytes], rng: random.Random) -> bytes:
    return b"".join(parts)


_STARTS = {
    "PNG": b"\x89PNG",
    "JPEG": b"\xff\xd8",
    "GIF": b"GIF8",
    "BMP": b"BM",
    "WEBP": b"RIFF",
    "TIFF": b"II*\0",
}
_SHAPES = {
    shape.name: shape
    for shape in (
        _Shape(
            *("PNG", "big", _split_png, _join_png),
            (_Sides(b"IHDR", 8, 4), _Sides(b"fcTL", 12, 4)),
        ),
        _Shape(
            *("JPEG", "big", _split_jpeg, _joined),
            (_Sides(b"\xff\xc0", 5, 2), _Sides(b"\xff\xc2", 5, 2)),
        ),
        _Shape(
            *("GIF", "little", _split_gif, _joined),
            (_Sides(b"GIF8", 6, 2), _Sides(b"\x2c", 5, 2)),
        ),
        _Shape("BMP", "little", _split_bmp, _joined, (_Sides(b"\x28\0\0\0", 4, 4),)),
        _Shape(
            *("WEBP", "little", _split_webp, _join_webp),
            (_Sides(b"VP8X", 12, 3), _Sides(b"VP8 ", 14, 2), _Sides(b"ANMF", 14, 3)),
        ),
        _Shape(
            *("TIFF", "little", _split_tiff, _join_tiff),
            tuple(
                _Sides(struct.pack("<H", tag), 8, 4, 1) for tag in (256, 257, 277, 278, 322, 323)
            ),
        ),
    )
}
