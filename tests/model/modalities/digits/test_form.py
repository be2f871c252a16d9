"""Pictures -> MNIST's form: what passes unchanged, what is brought there, what is nothing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageOps

from model.data.mnist import load_mnist
from model.modalities.digits.form import centre, is_centred_digit, prepare, to_grey
from model.modalities.digits.modality import SPEC
from model.modalities.digits.synthetic import unlike as outliers
from tests.digits import load_digits

IMAGES, _ = load_digits()


def enlarged(digit: np.ndarray, factor: int = 10) -> Image.Image:
    size = (digit.shape[1] * factor, digit.shape[0] * factor)
    return Image.fromarray(digit).resize(size, Image.Resampling.BICUBIC)


def test_mnist_passes_bit_for_bit_and_so_does_its_negative():
    for image in IMAGES:
        for form in (image, 255 - image):
            np.testing.assert_array_equal(prepare(Image.fromarray(form), SPEC)[0], image)
        np.testing.assert_array_equal(
            prepare(Image.fromarray(image).convert("RGB"), SPEC)[0], image
        )


def test_all_of_mnist_passes_bit_for_bit(mnist_folder: Path):
    mnist = load_mnist(mnist_folder, SPEC)
    for part in (mnist.train, mnist.test):
        for image in part.inputs[:, 0]:
            assert np.array_equal(prepare(Image.fromarray(image), SPEC)[0], image)


def test_result_is_in_mnists_form():
    for image in IMAGES[:100]:
        for picture in (enlarged(image), Image.fromarray(255 - np.array(enlarged(image)))):
            result = prepare(picture, SPEC)
            assert result.shape == (1, 28, 28)
            assert is_centred_digit(result[0], (28, 28))


def test_enlarged_digit_comes_back_nearly_as_it_was():
    differences = [
        np.abs(prepare(enlarged(image), SPEC)[0].astype(int) - image).mean()
        for image in IMAGES[:100]
    ]
    assert np.median(differences) < 20  # of 255


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (300, 200), (2, 3000)])
@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_blank_picture_shows_nothing(size: tuple[int, int], shade: int):
    assert not prepare(Image.new("L", size, shade), SPEC).any()


def test_place_and_size_in_the_picture_do_not_matter():
    digit = np.array(enlarged(IMAGES[0], 4))
    canvas = np.zeros((400, 600), dtype=np.uint8)
    canvas[270:382, 30:142] = digit
    there = prepare(Image.fromarray(canvas), SPEC)[0].astype(int)
    here = prepare(enlarged(IMAGES[0], 10), SPEC)[0].astype(int)
    assert np.abs(there - here).mean() < 8  # of 255: half a pixel either way


def test_aspect_is_kept():
    one = np.zeros((200, 200), dtype=np.uint8)
    one[20:180, 95:105] = 255
    rows, columns = np.nonzero(centre(one, (20, 180, 95, 105), (28, 28)))
    assert np.ptp(rows) + 1 == 20
    assert np.ptp(columns) + 1 <= 2


@pytest.mark.parametrize("ink", [0, 255])
def test_transparent_ground_takes_the_opposite_of_the_ink(ink: int):
    digit = np.array(enlarged(IMAGES[0]))
    layers = np.dstack([np.full_like(digit, ink)] * 3 + [digit])
    result = prepare(Image.fromarray(layers, "RGBA"), SPEC)[0].astype(int)
    assert np.abs(result - prepare(enlarged(IMAGES[0]), SPEC)[0]).mean() < 5


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_gives_the_same_picture(mode: str):
    # Black and white alone, which even 1-bit holds; a threshold makes the digit such.
    digit = np.where(np.array(enlarged(IMAGES[0])) > 127, 0, 255).astype(np.uint8)
    source = Image.fromarray(digit)
    picture = source.convert("RGB").convert(mode) if mode != "LA" else source.convert("LA")
    expected = prepare(source, SPEC).astype(int)
    assert np.abs(prepare(picture, SPEC) - expected).mean() < 1


def test_16_bit_and_float_pictures_keep_their_range():
    digit = np.array(enlarged(IMAGES[0]))
    expected = to_grey(Image.fromarray(digit))[0]
    deep = Image.fromarray(digit.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    np.testing.assert_allclose(to_grey(deep)[0].astype(int), expected, atol=1)
    floating = Image.fromarray(digit.astype(np.float32) / 255)
    np.testing.assert_allclose(to_grey(floating)[0].astype(int), expected, atol=1)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_integers_of_any_depth_keep_their_range(bits: int):
    digit = np.array(enlarged(IMAGES[0]))
    deep = Image.fromarray(digit.astype(np.int32) * (2**bits - 1) // 255)
    assert deep.mode == "I"
    assert np.abs(to_grey(deep)[0].astype(int) - to_grey(Image.fromarray(digit))[0]).max() <= 2


def test_exif_rotation_is_undone():
    digit = enlarged(IMAGES[0])
    turned = digit.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # to be shown turned right
    np.testing.assert_array_equal(prepare(turned, SPEC), prepare(digit, SPEC))


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=40)).filter(
        lambda pixels: pixels.ndim == 2 or pixels.shape[2] in (3, 4)
    )
)
def test_any_picture_gives_a_digit_or_nothing(pixels: np.ndarray):
    result = prepare(Image.fromarray(pixels), SPEC)
    assert result.shape == (1, 28, 28)
    assert result.dtype == np.uint8


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (10_000, 1), (1, 10_000), (3, 700), (257, 2)])
def test_odd_shapes_give_a_digit_or_nothing(size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    for picture in (Image.fromarray(noise), Image.fromarray(noise).convert("RGBA")):
        result = prepare(picture, SPEC)
        assert result.shape == (1, 28, 28)
        assert result.dtype == np.uint8


def test_the_outline_of_a_drawing_pad_is_no_digit():
    digit = Image.new("L", (400, 400), 255)
    digit.paste(ImageOps.invert(enlarged(IMAGES[0], 8)), (90, 90))
    pad = digit.copy()
    ImageDraw.Draw(pad).rectangle((20, 20, 380, 380), outline=120, width=3)
    difference = np.abs(prepare(pad, SPEC).astype(int) - prepare(digit, SPEC))
    assert difference.mean() < 3


def test_thin_stripes_between_the_columns_that_vote_for_lines():
    digits = np.zeros((1, 28, 28), np.uint8)
    stripes = outliers.ripples(np.random.default_rng([0, 122, *b"ripples"]), digits)
    assert prepare(stripes, SPEC).shape == (1, 28, 28)
