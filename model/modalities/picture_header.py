"""What decoding a picture will take, by its header and structure; nothing is decoded here.

Each function looks at a bounded number of places in the file.
"""

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from model.modalities import (
    EmptyInputError,
    InputTooCostlyError,
    InputTooLargeError,
    UnreadableInputError,
    UnsupportedInputError,
)

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
_SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
# Segments, chunks or blocks of one file, at most: a PNG of 10 MB in libpng's pieces has 1,280.
MOST_SEGMENTS = 5000
# The same, before the size is told; and bytes of a JPEG there that belong to no segment.
MOST_HEADER_SEGMENTS = 2000
MOST_JUNK_BYTES = 4096
# Texts and colour profiles of a PNG: each may inflate to 1 MB.
MOST_COMPRESSED_CHUNKS = 8
# Strips and tiles of a TIFF; one row a strip is usual.
MOST_STRIPS = 20_000
# Scans of one JPEG, at most, and its pixels times these; ten are usual.
MOST_SCANS = 100
MOST_SCANNED_PIXELS = 5 * 10**8
# A PNG that is decoded in less time than another process takes to hear of it.
TINY_BYTES = 4096
TINY_PIXELS = 32 * 32
# Neither text nor colour profiles, which may be compressed, nor frames of an animation.
_TINY_CHUNKS = frozenset(
    (b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"sBIT", b"bKGD")
)
# What a pixel takes against one of a PNG in RGBA, in CPU time or, for WebP, in memory.
_BASELINE_JPEG, _PROGRESSIVE_JPEG, _WEBP = 0.15, 0.4, 1.5
# A pixel and a byte of a run-length encoded BMP, which is decoded in Python.
_RUN_LENGTH_PIXEL, _RUN_LENGTH_BYTE = 10.0, 8.0
# A byte of a TIFF's numbers, which are read and written in Python.
_METADATA_BYTE = 30.0
# What any file takes, whatever its header tells.
LEAST_WORK = 100_000
# Beyond the bound on pixels, for what an ordinary picture has besides these.
MORE_WORK = 1_000_000
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # of a JPEG, but those within a scan
_TIFF_BYTES = frozenset((1, 2, 6, 7))  # types whose values are taken as they are
_TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # types of sizes and their codes for struct
_GIF_EXTENSION, _GIF_PICTURE = 0x21, 0x2C
_SIZES_OF_VALUES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SIZES_OF_VALUES |= {13: 4, 16: 8, 17: 8, 18: 8}  # of a TIFF's types, in bytes


class PictureHeader(NamedTuple):
    """What a file says of itself before it is decoded."""

    format: str  # one of `FORMATS`
    width: int  # of what is decoded, in pixels; of a TIFF at least a tile's
    height: int
    work: int  # that decoding takes, in pixels of an ordinary picture


def read_header(content: bytes, max_pixels: int) -> PictureHeader:
    """Reads the header of a picture file.

    Args:
        content: a whole file.
        max_pixels: of the picture, and of the work that it takes.

    Raises:
        InputError: it is empty, of another type, broken, or too large.
    """
    name = format_of(content)
    try:
        width, height, share = _READERS[name](content)
    except (struct.error, IndexError):
        raise UnreadableInputError(f"the {name} image is truncated or broken") from None
    if width < 1 or height < 1:
        raise UnreadableInputError(f"the image has no pixels: its size is {width} x {height}")
    if width * height > max_pixels:
        raise InputTooLargeError(
            f"the image has {width} x {height} pixels, more than the {max_pixels:,} allowed"
        )
    # A row takes about as much as a pixel more.
    work = max(LEAST_WORK, int(width * height * share) + max(0, height - width))
    if work > max_pixels + MORE_WORK:
        raise InputTooCostlyError(
            f"to decode this {name} image of {width} x {height} pixels takes as much as "
            f"{work:,} pixels of others, more than the {max_pixels:,} allowed"
        )
    return PictureHeader(name, width, height, work)


def format_of(content: bytes) -> str:
    """The format of a file, by its first bytes.

    Raises:
        EmptyInputError, UnsupportedInputError: it has none.
    """
    if not content:
        raise EmptyInputError("the image is empty: it has no bytes")
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    for name, magic in _SIGNATURES.items():
        if content.startswith(magic):
            return name
    raise UnsupportedInputError(f"the image is of none of the types read: {', '.join(FORMATS)}")


def is_tiny(content: bytes) -> bool:
    """Whether it is a PNG of a few pixels, as all of its chunks prove."""
    if len(content) > TINY_BYTES or not content.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        return False
    if len(content) < 33:
        return False
    width, height = struct.unpack_from(">II", content, 16)
    if not 0 < width * height <= TINY_PIXELS:
        return False
    at, kind = 33, b"IHDR"
    while kind != b"IEND" and at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind not in _TINY_CHUNKS:
            return False
        at += 12 + length
    return kind == b"IEND" and at <= len(content)


def check_structure(content: bytes, header: PictureHeader) -> None:
    """Counts what a file is made of, before it is decoded; takes up to 20 ms for 10 MB.

    Raises:
        InputTooCostlyError: it has more parts than a picture needs.
        UnreadableInputError: it is broken.
    """
    counter = _COUNTERS.get(header.format)
    try:
        if counter is not None:
            counter(content, header)
    except (struct.error, IndexError):
        raise UnreadableInputError(f"the {header.format} image is truncated or broken") from None


def _png_size(content: bytes) -> tuple[int, int, float]:
    if content[12:16] != b"IHDR":
        raise UnreadableInputError("the PNG image does not begin with its header")
    return *struct.unpack_from(">II", content, 16), 1.0


def _jpeg_size(content: bytes) -> tuple[int, int, float]:
    for marker, at in _jpeg_segments(content, MOST_HEADER_SEGMENTS, MOST_JUNK_BYTES):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, at + 3)
            return width, height, _BASELINE_JPEG if marker in (0xC0, 0xC1) else _PROGRESSIVE_JPEG
        if marker == 0xDA:
            break
    raise UnreadableInputError("the JPEG image does not tell its size before its pixels")


def _jpeg_segments(content: bytes, most: int, junk: int) -> Iterator[tuple[int, int]]:
    """Marker of each segment, and where its length is.

    Args:
        content: the file.
        most: segments.
        junk: bytes that may be skipped because they belong to no segment, such as a scan's.
    """
    at = 2
    for _ in range(most):
        found = _MARKER.search(content, at, at + junk + 2)
        if found is None or found[1] == b"\xd9":
            return
        junk -= found.start() - at
        marker, at = found[1][0], found.end()
        yield marker, at
        if marker not in (0x01, 0xD8):
            at += struct.unpack_from(">H", content, at)[0]
    raise _too_many("JPEG", "segments", most)


def _gif_size(content: bytes) -> tuple[int, int, float]:
    """The larger of the screen's size and of the first frame's reach."""
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    for at, kind in _gif_blocks(content, 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)):
        if kind == _GIF_PICTURE:
            left, top, wide, high = struct.unpack_from("<HHHH", content, at + 1)
            return max(width, left + wide), max(height, top + high), 1.0
    raise UnreadableInputError("the GIF image has no picture in it")


def _gif_blocks(content: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Place and kind of each block up to the first picture."""
    steps = 0
    while at < len(content):
        kind = content[at]
        yield at, kind
        at += 2 if kind == _GIF_EXTENSION else 1
        size = content[at] if kind == _GIF_EXTENSION else 0
        while size:
            at, steps = at + size + 1, steps + 1
            size = content[at] if steps < MOST_HEADER_SEGMENTS else 0
        at, steps = at + (kind == _GIF_EXTENSION), steps + 1
        if steps > MOST_HEADER_SEGMENTS:
            raise _too_many("GIF", "blocks", MOST_HEADER_SEGMENTS)


def _bmp_size(content: bytes) -> tuple[int, int, float]:
    if struct.unpack_from("<I", content, 14)[0] == 12:
        return *struct.unpack_from("<HH", content, 18), 1.0
    width, height = struct.unpack_from("<ii", content, 18)
    if content[30] not in (1, 2):
        return width, abs(height), 1.0
    runs = len(content) * _RUN_LENGTH_BYTE / max(1, width * abs(height))
    return width, abs(height), _RUN_LENGTH_PIXEL + runs


def _webp_size(content: bytes) -> tuple[int, int, float]:
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        content[29]  # it is there
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    else:
        raise UnreadableInputError("the WEBP image is truncated or broken")
    return width, height, _WEBP


def _tiff_size(content: bytes) -> tuple[int, int, float]:
    width = height = 0
    numbers = 0.0  # bytes of them
    for tag, kind, values, at, order in _tiff_entries(content):
        if tag in (256, 257, 322, 323):
            if kind not in _TIFF_NUMBERS:
                raise UnreadableInputError("the TIFF image tells its size by no whole number")
            (value,) = struct.unpack_from(order + _TIFF_NUMBERS[kind], content, at)
            if tag in (256, 322):
                width = max(width, value)
            else:  # a tile is decoded whole, however little of it the picture shows
                height = max(height, value)
        elif kind not in _TIFF_BYTES:
            numbers += _SIZES_OF_VALUES.get(kind, 1) * values
    return width, height, 1.0 + numbers * _METADATA_BYTE / max(1, width * height)


def _tiff_entries(content: bytes) -> Iterator[tuple[int, int, int, int, str]]:
    """Tag, type and number of values, where these are, and the byte order, of the first picture."""
    order = "<" if content[:2] == b"II" else ">"
    if 43 in content[2:4]:
        start = struct.unpack_from(order + "Q", content, 8)[0]
        count, at, entry, inline = struct.unpack_from(order + "Q", content, start)[0], 8, "HHQ", 8
    else:
        start = struct.unpack_from(order + "I", content, 4)[0]
        count, at, entry, inline = struct.unpack_from(order + "H", content, start)[0], 2, "HHI", 4
    head = struct.Struct(order + entry)
    if start + at + count * (head.size + inline) > len(content):
        raise IndexError
    if count > MOST_HEADER_SEGMENTS:
        raise _too_many("TIFF", "entries", MOST_HEADER_SEGMENTS)
    for index in range(count):
        here = start + at + index * (head.size + inline)
        tag, kind, values = head.unpack_from(content, here)
        place = here + head.size
        if _SIZES_OF_VALUES.get(kind, 1) * values > inline:
            place = struct.unpack_from(order + ("Q" if inline == 8 else "I"), content, place)[0]
        yield tag, kind, values, place, order


_READERS: dict[str, Callable[[bytes], tuple[int, int, float]]] = {
    "PNG": _png_size,
    "JPEG": _jpeg_size,
    "GIF": _gif_size,
    "BMP": _bmp_size,
    "WEBP": _webp_size,
    "TIFF": _tiff_size,
}


def _count_png(content: bytes, header: PictureHeader) -> None:
    at, compressed = 8, 0
    for _ in range(MOST_SEGMENTS):
        if at + 8 > len(content):
            return
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IEND":
            return
        if kind == b"IHDR" and at > 8:
            raise UnreadableInputError("the PNG image has several headers")
        compressed += kind in (b"iCCP", b"zTXt", b"iTXt")
        if compressed > MOST_COMPRESSED_CHUNKS:
            raise _too_many("PNG", "texts and colour profiles", MOST_COMPRESSED_CHUNKS)
        at += 12 + length
    raise _too_many("PNG", "chunks", MOST_SEGMENTS)


def _count_jpeg(content: bytes, header: PictureHeader) -> None:
    segments = _jpeg_segments(content, MOST_SEGMENTS, len(content))
    scans = sum(marker == 0xDA for marker, _ in segments)
    if scans > MOST_SCANS or scans * header.width * header.height > MOST_SCANNED_PIXELS:
        raise InputTooCostlyError(
            f"the JPEG image has {scans} scans of {header.width} x {header.height} pixels; "
            "save it as a baseline JPEG"
        )


def _count_webp(content: bytes, header: PictureHeader) -> None:
    at = 12
    for _ in range(MOST_SEGMENTS):
        if at + 8 > len(content):
            return
        at += 8 + (struct.unpack_from("<I", content, at + 4)[0] + 1 & ~1)
    raise _too_many("WEBP", "chunks", MOST_SEGMENTS)


def _count_tiff(content: bytes, header: PictureHeader) -> None:
    room = len(content) + 2**16
    for tag, kind, values, _, _ in _tiff_entries(content):
        if tag in (273, 279, 324, 325) and values > MOST_STRIPS:
            raise _too_many("TIFF", "strips", MOST_STRIPS)
        room -= _SIZES_OF_VALUES.get(kind, 1) * values
        if room < 0:
            raise UnreadableInputError("the TIFF image announces more than it holds")


_COUNTERS: dict[str, Callable[[bytes, PictureHeader], None]] = {
    "PNG": _count_png,
    "JPEG": _count_jpeg,
    "WEBP": _count_webp,
    "TIFF": _count_tiff,
}


def _too_many(name: str, what: str, most: int) -> InputTooCostlyError:
    return InputTooCostlyError(f"the {name} image has more than {most:,} {what}")
