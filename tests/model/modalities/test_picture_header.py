"""What a file announces: told as Pillow tells it, in bounded time."""

import io
import struct
import time
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.modalities import (
    InputError,
    InputTooCostlyError,
    InputTooLargeError,
    UnreadableInputError,
)
from model.modalities.picture_header import TINY_PIXELS, check_structure, is_tiny, read_header
from model.modalities.pillow import decode
from tests.attacks import LEGAL, REFUSED, attack, flat_png, header, png, profile
from tests.conftest import encode
from tests.digits import load_digits
from tests.mutations.pictures import mutant, seeds

# pytest undoes the filter that model.modalities.pillow sets
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MAX_PIXELS = 25_000_000
SEVEN = Image.fromarray(load_digits()[0][0])
IDAT, IEND = (b"IDAT", zlib.compress(bytes(29 * 28))), (b"IEND", b"")


@pytest.mark.parametrize("content", seeds())
def test_sizes_are_pillows(content: bytes):
    found = read_header(content, MAX_PIXELS)
    check_structure(content, found)
    opened = Image.open(io.BytesIO(content))
    assert (found.format, (found.width, found.height)) == (opened.format, opened.size)


@pytest.mark.parametrize("start", range(0, 1000, 500))
def test_nothing_that_is_decoded_was_announced_smaller(start: int):
    for number in range(start, start + 500):
        content = mutant(number)
        try:
            picture = decode(content, MAX_PIXELS)
        except InputError:
            continue
        announced = read_header(content, MAX_PIXELS)
        width, height = picture.info["size"]
        assert width * height <= announced.width * announced.height


@given(st.sampled_from(seeds()), st.binary(max_size=40), st.integers(0, 200))
def test_whatever_is_broken_it_is_told_or_refused(content: bytes, noise: bytes, at: int):
    content = content[:at] + noise + content[at + len(noise) :]
    with suppress(InputError):
        check_structure(content, read_header(content, MAX_PIXELS))


@pytest.mark.parametrize("name", REFUSED)
def test_what_costs_too_much_is_refused_before_it_is_decoded(name: str):
    content = attack(name)
    tracemalloc.start()
    begun = time.process_time()
    with pytest.raises((InputTooCostlyError, InputTooLargeError, UnreadableInputError)):
        decode(content, MAX_PIXELS)
    seconds, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 0.5
    assert peak < 2**20


@pytest.mark.parametrize("name", LEGAL)
def test_what_is_legal_is_let_through(name: str):
    check_structure(attack(name), read_header(attack(name), MAX_PIXELS))


def test_a_tiny_picture_is_one_that_all_its_chunks_prove():
    assert is_tiny(encode(SEVEN))
    assert is_tiny(encode(SEVEN.convert("RGBA")))
    assert is_tiny(flat_png(32, 32))
    assert not is_tiny(flat_png(33, 32))
    assert not is_tiny(encode(SEVEN, "GIF"))
    assert not is_tiny(encode(SEVEN)[:-1])
    assert not is_tiny(encode(SEVEN, exif=Image.Exif()) + bytes(5000))
    head = (b"IHDR", header(28, 28))
    assert is_tiny(png([head, IDAT, IEND]))
    for bad in (
        [(b"tEXt", struct.pack(">II", 28, 28) + bytes(5)), head, IDAT, IEND],
        [head, (b"IHDR", header(5000, 5000)), IDAT, IEND],
        [head, (b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))), IDAT, IEND],
        [head, (b"iCCP", profile(1_000_000)), IDAT, IEND],
        [head, (b"acTL", struct.pack(">II", 2, 0)), IDAT, IEND],
        [head, IDAT],
        [(b"IHDR", header(0, 28)), IDAT, IEND],
        [(b"IHDR", header(28, 0)), IDAT, IEND],
        [(b"IHDR", header(2**31, 2**31)), IDAT, IEND],
        [(b"IHDR", header(28, 28) + bytes(4)), IDAT, IEND],
    ):
        assert not is_tiny(png(bad))


@given(st.integers(0, 2000))
def test_a_tiny_picture_has_few_pixels_whatever_pillow_makes_of_it(number: int):
    content = mutant(number)
    if is_tiny(content):
        try:
            picture = decode(content, MAX_PIXELS)
        except InputError:
            return
        assert picture.width * picture.height <= TINY_PIXELS


def test_a_large_motion_photo_is_read():
    """A video follows the picture's end; what it holds is nobody's marker."""
    photo = encode(Image.new("RGB", (400, 300)), "JPEG", progressive=True)
    video = bytes(range(256)) * 20_000 + b"\xff\xda\xff\xfe" * 100_000
    assert decode(photo + video, MAX_PIXELS).size == (400, 300)
