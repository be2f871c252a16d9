"""Bytes -> pictures: every type and mode, and the limits."""

import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.modalities import (
    EmptyInputError,
    InputError,
    InputTooLargeError,
    UnreadableInputError,
    UnsupportedInputError,
)
from model.modalities.digits.form import prepare
from model.modalities.digits.modality import SPEC
from model.modalities.pillow import decode
from tests.attacks import header, png
from tests.conftest import encode
from tests.digits import load_digits
from tests.mutations.pictures import mutant

pytestmark = [  # pytest undoes the filters that model.modalities.pillow sets
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]
MAX_PIXELS = 1_000_000
SEVEN = Image.fromarray(load_digits()[0][0])


def with_orientation(value: int | str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


KINDS = ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]
FILES = [encode(SEVEN.convert("RGB"), kind) for kind in KINDS] + [
    encode(SEVEN.convert("LA")),
    encode(SEVEN.convert("I;16"), "TIFF"),
    encode(SEVEN, "TIFF", compression="tiff_lzw"),
    encode(SEVEN.convert("RGB"), "JPEG", exif=with_orientation(6)),
    encode(SEVEN.convert("RGB"), "WEBP", exif=with_orientation(6)),
    encode(SEVEN, "GIF", save_all=True, append_images=[SEVEN.rotate(90)]),
]


def tiff_of_one_tile(side: int, tile: int) -> bytes:
    """The start of a TIFF whose only tile is larger than the picture that it is cut to."""
    tags = {
        256: side,
        257: side,
        258: 8,
        259: 1,
        262: 1,
        277: 1,
        322: tile,
        323: tile,
        324: 8,
        325: 8,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(16)


PIXELS = (b"IDAT", zlib.compress(bytes(29 * 28)))  # of 28 x 28 indices, without a palette


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and has next to no pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_decoded(kind: str):
    picture = decode(encode(SEVEN.convert("RGB"), kind), MAX_PIXELS)
    assert picture.size == (28, 28)
    difference = np.abs(np.asarray(picture.convert("L"), dtype=int) - np.asarray(SEVEN))
    assert difference.mean() < 10  # lossy kinds


def test_an_animation_gives_its_first_frame():
    picture = decode(FILES[-1], MAX_PIXELS)
    np.testing.assert_array_equal(picture.convert("L"), SEVEN)


def test_exif_orientation_turns_it_upright():
    lying = encode(SEVEN.rotate(90), "PNG", exif=with_orientation(6))
    np.testing.assert_array_equal(decode(lying, MAX_PIXELS), SEVEN)


def test_broken_exif_is_no_reason_to_refuse():
    content = encode(SEVEN, exif=b"Exif\0\0neither byte order")
    np.testing.assert_array_equal(decode(content, MAX_PIXELS), SEVEN)


def test_a_large_jpeg_is_decoded_smaller():
    content = encode(SEVEN.resize((3000, 3000)), "JPEG")
    assert decode(content, 9_000_000).size == (750, 750)
    content = encode(SEVEN.resize((3000, 40)), "JPEG")
    assert decode(content, 9_000_000).height >= 10


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyInputError),
        (b"hello, I am a text", UnsupportedInputError),
        (b"\0\0\x01\0\x01\0\x10\x10", UnsupportedInputError),  # ICO
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedInputError),
        (b"%PDF-1.7", UnsupportedInputError),
        (b"\x89PNG\r\n\x1a\n", UnreadableInputError),
        (FILES[0][:-40], UnreadableInputError),
        (FILES[1][: len(FILES[1]) // 2], UnreadableInputError),
        (png_header(0, 28), UnreadableInputError),
        (png_header(28, 0), UnreadableInputError),
        (b"GIF89a" + bytes(20), UnreadableInputError),
        (png([(b"IHDR", header(28, 28, 8, 3)), PIXELS, (b"IEND", b"")]), UnreadableInputError),
        (png_header(1001, 1000), InputTooLargeError),
        (png_header(10_000, 10_000), InputTooLargeError),
        (png_header(2**31 - 1, 2**31 - 1), InputTooLargeError),
    ],
)
def test_each_cause_has_its_error(content: bytes, error: type[InputError]):
    with pytest.raises(error):
        decode(content, MAX_PIXELS)


@settings(max_examples=300, deadline=None)
@given(
    content=st.sampled_from(FILES),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=8),
    length=st.one_of(st.none(), st.integers(0, 800)),
)
def test_whatever_is_broken_it_is_read_or_refused(
    content: bytes, edits: list[tuple[int, bytes]], length: int | None
):
    for at, replacement in edits:
        content = content[:at] + replacement + content[at + len(replacement) :]
    try:
        picture = decode(content[:length], MAX_PIXELS)
    except InputError:
        return
    assert prepare(picture, SPEC).shape == (1, 28, 28)


@pytest.mark.parametrize("start", range(0, 1500, 300))
def test_mutants_of_every_format_are_read_or_refused(start: int, capfd: pytest.CaptureFixture[str]):
    """`bench.fuzz` goes on with these numbers; no decoder prints a word of its own."""
    for number in range(start, start + 300):
        with suppress(InputError):
            picture = decode(mutant(number), MAX_PIXELS)
            assert prepare(picture, SPEC).shape == (1, 28, 28)
    captured = capfd.readouterr()
    assert not captured.out
    assert not captured.err
