"""Small files that cost their reader much: each legal by its format, or nearly so."""

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from tests.conftest import encode

Make = Callable[[], bytes]


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, each with its right checksum."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def header(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


def flat_png(width: int, height: int, colour: int = 0, depth: int = 8, interlace: int = 0) -> bytes:
    """One shade all over."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = 1 + (width * channels * depth + 7) // 8
    pixels = zlib.compress(bytes(row * height), 6)
    palette = [(b"PLTE", bytes(768)), (b"tRNS", bytes(256))] if colour == 3 else []
    head = header(width, height, depth, colour, interlace)
    return png([(b"IHDR", head), *palette, (b"IDAT", pixels), (b"IEND", b"")])


def flat(width: int, height: int, kind: str, mode: str = "RGB", **options: object) -> bytes:
    return encode(Image.new(mode, (width, height)), kind, **options)


def scans(count: int, side: int, *, empty: bool) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = flat(side, side, "JPEG", progressive=True)
    end = content.rindex(b"\xff\xd9")
    last = content[content.rindex(b"\xff\xda") : end]
    if empty:
        last = last[: 2 + struct.unpack_from(">H", last, 2)[0]]
    return content[:end] + last * count + content[end:]


def padded_jpeg(extra: bytes) -> bytes:
    """A JPEG with more segments after its first marker."""
    content = flat(8, 8, "JPEG")
    return content[:2] + extra + content[2:]


def chunks(count: int, name: bytes, data: bytes = b"") -> bytes:
    """A tiny PNG with so many chunks before its pixels."""
    pixels = zlib.compress(bytes(29 * 28))
    extra = [(name, data)] * count
    return png([(b"IHDR", header(28, 28)), *extra, (b"IDAT", pixels), (b"IEND", b"")])


def profile(size: int) -> bytes:
    """A colour profile that inflates to so many bytes."""
    return b"x\0\0" + zlib.compress(bytes(size), 9)


def two_headers(first: tuple[int, int], second: tuple[int, int]) -> bytes:
    """A PNG that changes its mind about its size."""
    pixels = zlib.compress(bytes((second[0] + 1) * second[1]), 9)
    heads = [(b"IHDR", header(*first)), (b"IHDR", header(*second))]
    return png([*heads, (b"IDAT", pixels), (b"IEND", b"")])


def first_chunk_lies(side: int) -> bytes:
    """A PNG whose first chunk is no header, but holds the bytes of a tiny one's size."""
    return png(
        [
            (b"tEXt", struct.pack(">II", 28, 28) + bytes(5)),
            (b"IHDR", header(side, side, 1)),
            (b"IDAT", zlib.compress(bytes((side // 8 + 1) * side), 9)),
            (b"IEND", b""),
        ]
    )


def bitmap_runs(width: int, height: int, data: bytes) -> bytes:
    """A run-length encoded BMP."""
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    size = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", size + len(data), 0, 0, size) + head + palette + data


def tiff(entries: list[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """A little-endian TIFF of entries (tag, type, count, value or place), then more bytes."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + tail


def tiff_strips(count: int) -> bytes:
    """An uncompressed TIFF of one pixel a strip."""
    base = 8 + 2 + 10 * 12 + 4
    places = struct.pack(f"<{count}I", *[base] * count)
    sizes = struct.pack(f"<{count}I", *[1] * count)
    entries = [
        *((256, 4, 1, 1), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, count, base), (277, 3, 1, 1), (278, 4, 1, 1)),
        *((279, 4, count, base + len(places)), (284, 3, 1, 1)),
    ]
    return tiff(entries, places + sizes)


def tiff_shared_values(tags: int, size: int) -> bytes:
    """A TIFF whose many tags all point at the same values."""
    entries = [(256, 3, 1, 1), (257, 3, 1, 1)]
    entries += [(1000 + index, 1, size, 12 * (tags + 2) + 14) for index in range(tags)]
    return tiff(entries, bytes(size))


def tiff_of_rationals(count: int) -> bytes:
    """A small TIFF that lies on its side and has so many fractions to tell."""
    start = 8 + 2 + 12 * 11 + 4
    entries = [
        *((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, 1, start), (274, 3, 1, 6), (277, 3, 1, 1), (278, 4, 1, 8), (279, 4, 1, 64)),
        (40_000, 5, count, start + 64),
    ]
    return tiff(entries, bytes(64) + struct.pack("<II", 1, 3) * count)


def exif_of_rationals(count: int) -> bytes:
    """A tiny PNG on its side, with metadata of so many fractions."""
    entries = [(274, 3, 1, 6), (40_000, 5, count, 8 + 2 + 24 + 4)]
    exif = tiff(entries, struct.pack("<II", 1, 3) * count)
    pixels = zlib.compress(bytes(29 * 28))
    return png([(b"IHDR", header(28, 28)), (b"eXIf", exif), (b"IDAT", pixels), (b"IEND", b"")])


def gif_hidden(side: int) -> bytes:
    """A GIF whose header seems to end in a tiny frame, behind which a large one follows."""
    content = flat(side, side, "GIF", "L")
    at = 13 + (3 << ((content[10] & 7) + 1) if content[10] & 0x80 else 0)
    tiny = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    screen = content[:6] + struct.pack("<HH", 1, 1) + content[10:at]
    return screen + b"\x21\x01\0" + tiny + bytes([36]) + bytes(36) + b"\0" + content[at:]


def tiff_of_odd_size(side: int) -> bytes:
    """A TIFF whose size is given as signed numbers, which Pillow reads as well."""
    content = flat(side, side, "TIFF", "L", compression="tiff_adobe_deflate")
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    signed = bytearray(content)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, at)[0] in (256, 257):
            struct.pack_into("<HII", signed, at + 2, 9, 1, side)
    return bytes(signed)


def gif_blocks(count: int) -> bytes:
    """A GIF with so many empty comments before its picture."""
    content = flat(28, 28, "GIF", "L")
    at = 13 + (3 << ((content[10] & 7) + 1) if content[10] & 0x80 else 0)
    return content[:at] + b"\x21\xfe\0" * count + content[at:]


def comb(rows: int, strokes: int, width: int = 1600) -> bytes:
    """Rows of strokes on a line each, as a reader of numbers dreads them."""
    height = 16 * rows
    grey = np.full((height, width), 255, np.uint8)
    for row in range(rows):
        grey[16 * row + 13, :] = 0
        grey[16 * row + 2 : 16 * row + 13, :: max(2, width // strokes)] = 0
    return encode(grey)


def noise(width: int, height: int, share: float) -> bytes:
    """Black pixels strewn on white."""
    rng = np.random.default_rng(0)
    return encode(np.where(rng.random((height, width)) < share, 0, 255).astype(np.uint8))


# Pictures that are within the limits, and the dearest of their kind.
LEGAL: dict[str, Make] = {
    "25 MP of grey, PNG": lambda: flat_png(5000, 5000),
    "25 MP of RGBA, PNG": lambda: flat_png(5000, 5000, 6),
    "25 MP of a palette with transparency, PNG": lambda: flat_png(5000, 5000, 3),
    "25 MP of 16 bits, PNG": lambda: flat_png(5000, 5000, 0, 16),
    "12 MP in one column, PNG": lambda: flat_png(1, 12_400_000),
    "25 MP in one row, PNG": lambda: flat_png(25_000_000, 1),
    "16 MP, WebP": lambda: flat(4080, 4080, "WEBP", lossless=True),
    "16 MP in a narrow column, WebP": lambda: flat(1020, 16_000, "WEBP", lossless=True),
    "25 MP, JPEG": lambda: flat(5000, 5000, "JPEG"),
    "25 MP of full colour, JPEG": lambda: flat(5000, 5000, "JPEG", subsampling=0),
    "25 MP in 20 scans, JPEG": lambda: scans(10, 5000, empty=False),
    "0.25 MP in 100 scans, JPEG": lambda: scans(88, 500, empty=False),
    "25 MP, GIF": lambda: flat(5000, 5000, "GIF", "L"),
    "25 MP of four inks, TIFF": lambda: flat(5000, 5000, "TIFF", "CMYK", compression="tiff_lzw"),
    "25 MP of floats, TIFF": lambda: flat(
        5000, 5000, "TIFF", "F", compression="tiff_adobe_deflate"
    ),
    "25 MP of fax, TIFF": lambda: flat(5000, 5000, "TIFF", "1", compression="group4"),
    "20,000 strips, TIFF": lambda: tiff_strips(20_000),
    "8,000 fractions in EXIF, PNG": lambda: exif_of_rationals(8000),
    "800 KB of fractions in EXIF, PNG": lambda: exif_of_rationals(100_000),
    "1,990 comments, JPEG": lambda: padded_jpeg(b"\xff\xfe\0\x02" * 1990),
    "1.8 MB of runs, BMP": lambda: bitmap_runs(1000, 1000, b"\x01\x07" * 900_000),
    "5,000 chunks, PNG": lambda: chunks(4990, b"teSt"),
    "8 colour profiles, PNG": lambda: chunks(8, b"iCCP", profile(1_000_000)),
}
# Pictures that are refused before they are decoded.
REFUSED: dict[str, Make] = {
    "20,000 empty scans, JPEG": lambda: scans(20_000, 256, empty=True),
    "1,000 scans, JPEG": lambda: scans(1000, 1000, empty=False),
    "200 scans of 25 MP, JPEG": lambda: scans(200, 5000, empty=False),
    "2.5 million empty markers, JPEG": lambda: padded_jpeg(b"\xff\x01" * 2_500_000),
    "300,000 empty comments, JPEG": lambda: padded_jpeg(b"\xff\xfe\0\x02" * 300_000),
    "10 MB of what is no marker, JPEG": lambda: padded_jpeg(b"\xff\0" * 5_000_000),
    "800,000 empty chunks, PNG": lambda: chunks(800_000, b"IDAT"),
    "4,000 colour profiles, PNG": lambda: chunks(4000, b"iCCP", profile(1_000_000)),
    "two headers, PNG": lambda: two_headers((28, 28), (5000, 5000)),
    "a first chunk that lies, PNG": lambda: first_chunk_lies(5000),
    "25 MP in one column, PNG": lambda: flat_png(1, 25_000_000),
    "25 MP, WebP": lambda: flat(5000, 5000, "WEBP", lossless=True),
    "9 MB of runs, BMP": lambda: bitmap_runs(1000, 1000, b"\x01\x07" * 4_500_000),
    "1 million strips, TIFF": lambda: tiff_strips(1_000_000),
    "60,000 tags for the same 5 MB, TIFF": lambda: tiff_shared_values(60_000, 5_000_000),
    "1,500 tags for the same 5 MB, TIFF": lambda: tiff_shared_values(1500, 5_000_000),
    "1 million empty comments, GIF": lambda: gif_blocks(1_000_000),
    "one row of nothing but line ends, BMP": lambda: bitmap_runs(24_990_000, 1, b"\x01\x07\0\0"),
    "1.6 MB of rationals, TIFF": lambda: tiff_of_rationals(200_000),
    "a frame behind an empty block, GIF": lambda: gif_hidden(5000),
    "a size that is no whole number, TIFF": lambda: tiff_of_odd_size(5000),
    "900 MP, PNG": lambda: png([(b"IHDR", header(30_000, 30_000)), (b"IEND", b"")]),
}
# Pictures that /read has to look through.
DREADED: dict[str, Make] = {
    "a comb of eight rows": lambda: comb(8, 800),
    "a comb of one row": lambda: comb(1, 400),
    "strewn ink": lambda: noise(1000, 600, 0.02),
    "half ink": lambda: noise(1000, 600, 0.5),
}


@cache
def attack(name: str) -> bytes:
    """One of the files above, made once."""
    return (LEGAL | REFUSED | DREADED)[name]()


def string_among_numbers(length: int) -> bytes:
    """An inference request with one long string among 100,000 numbers."""
    data = [0] * 100_000 + ["a" * length]
    tensor = {"name": "image", "datatype": "UINT8", "shape": [64, 28, 28], "data": data}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def gzip_bomb(size: int) -> bytes:
    """A body of spaces."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9) as pressed:
        for _ in range(size // 2**20):
            pressed.write(b" " * 2**20)
    return file.getvalue()
