"""Pictures made to cost much: preparing them and looking for digits in them ends soon."""

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.checkpoint.folder import Checkpoint
from model.modalities import TooManyPartsError
from model.modalities.digits.form import centre, prepare, to_grey
from model.modalities.digits.ink.components import Components
from model.modalities.digits.modality import SPEC
from model.modalities.digits.reading.extents import ExtentNetwork
from model.modalities.digits.reading.learned import EXTENTS_FILE
from model.modalities.digits.reading.marks import find_marks
from model.modalities.digits.reading.segment import MOST_CANDIDATES, segment

Grey = NDArray[np.uint8]

CANDIDATE_S = 0.0005  # of CPU, that the model takes to read one
WIDE, HIGH = 1000, 600
PIXELS = 25_000_000
MIB = 2**20


def bars(width: int, height: int, tooth: int, gap: int, rows: int = 1, comb: bool = False) -> Grey:
    """Upright strokes in rows, joined at their feet in a comb."""
    grey = np.full((height, width), 255, np.uint8)
    step = height // rows
    for top in range(0, rows * step, step):
        foot = top + step - 4
        for left in range(2, width - 2, tooth + gap):
            grey[top + 2 : foot, left : left + tooth] = 0
        if comb:
            grey[foot - max(2, tooth) : foot, 2:-2] = 0
    return grey


def noise(width: int, height: int, share: float, size: int) -> Grey:
    """Black squares by chance."""
    chance = np.random.default_rng(0).random((height // size + 1, width // size + 1))
    squares = np.where(chance < share, 0, 255).astype(np.uint8)
    return squares.repeat(size, 0).repeat(size, 1)[:height, :width]


def pattern(ink: Callable[[Grey, Grey], Grey]) -> Grey:
    """Where `ink` of a pixel's row and column is true, with a margin."""
    grey = np.full((HIGH, WIDE), 255, np.uint8)
    grey[3:-3, 3:-3][ink(*np.indices((HIGH - 6, WIDE - 6)))] = 0
    return grey


def line(points: list[tuple[float, float]], width: int, height: int, pen: int = 2) -> Grey:
    picture = Image.new("L", (width, height), 255)
    ImageDraw.Draw(picture).line(points, fill=0, width=pen)
    return np.asarray(picture)


def zigzag(width: int, height: int, step: int) -> Grey:
    turns = range(4, width - 4, step)
    return line([(x, (4, height - 5)[i % 2]) for i, x in enumerate(turns)], width, height)


def spiral(turns: int) -> Grey:
    angle = np.linspace(0, turns * 2 * np.pi, turns * 80)
    x, y = 380 + angle / angle[-1] * 370 * np.array([np.cos(angle), np.sin(angle)])
    return line(list(zip(x.tolist(), y.tolist(), strict=True)), 770, 770, 3)


def rows_of_text(size: int, text: str) -> Grey:
    picture = Image.new("L", (WIDE, HIGH), 255)
    draw = ImageDraw.Draw(picture)
    for top in range(2, HIGH - size, size):
        draw.text((2, top), text * (2 * WIDE // size), fill=0, font_size=size)
    return np.asarray(picture)


COSTLY: dict[str, Callable[[], Grey]] = {
    "eight rows of strokes": lambda: bars(WIDE, HIGH, 2, 2, 8),
    "eight combs": lambda: bars(WIDE, HIGH, 2, 2, 8, comb=True),
    "thirty combs": lambda: bars(WIDE, HIGH, 1, 3, 30, comb=True),
    "strokes as high as the picture": lambda: bars(WIDE, HIGH, 2, 2),
    "few strokes as high as the picture": lambda: bars(WIDE, HIGH, 4, 8),
    "one comb": lambda: bars(30_000, 20, 2, 3, comb=True),
    "one stroke": lambda: bars(30_000, 20, 29_000, 1),
    "one stroke, two rows high": lambda: bars(3000, 8, 2900, 1),
    "short strokes, three rows high": lambda: bars(2500, 9, 6, 20),
    "zigzag": lambda: zigzag(30_000, 20, 10),
    "wide zigzag": lambda: zigzag(5_000, 120, 40),
    "much noise": lambda: noise(WIDE, HIGH, 0.3, 1),
    "coarse noise": lambda: noise(WIDE, HIGH, 0.05, 8),
    "little noise": lambda: noise(WIDE, HIGH, 0.001, 2),
    "scattered squares": lambda: noise(WIDE, HIGH, 0.01, 4),
    "a row of noise": lambda: noise(6000, 100, 0.3, 1),
    "hatching": lambda: pattern(lambda row, column: (row + column) % 6 < 3),
    "chequers": lambda: pattern(lambda row, column: (row // 2 + column // 2) % 2 == 0),
    "grid": lambda: pattern(lambda row, column: (row % 12 < 2) | (column % 12 < 2)),
    "spiral": lambda: spiral(40),
    "a page of digits": lambda: rows_of_text(16, "8"),
    "a page of points": lambda: rows_of_text(24, "il.- "),
    "a column of pixels": lambda: noise(1, PIXELS, 0.3, 1),
    "two columns of pixels": lambda: noise(2, 600_000, 0.3, 1),
    "a row of pixels": lambda: noise(PIXELS, 1, 0.3, 1),
}


@pytest.fixture(scope="module")
def network(checkpoint: Checkpoint) -> ExtentNetwork:
    return ExtentNetwork.from_npz(checkpoint.parts[EXTENTS_FILE])


def cost_of(work: Callable[[], object]) -> float:
    """Seconds of CPU."""
    started = time.process_time()
    work()
    return time.process_time() - started


@pytest.mark.parametrize("case", COSTLY)
def test_looking_for_digits_ends_within_a_second(case: str, network: ExtentNetwork):
    picture = Image.fromarray(COSTLY[case]())
    candidates = 0

    def look() -> None:
        nonlocal candidates
        with suppress(TooManyPartsError):
            marks = find_marks(picture, picture.size)
            candidates = len(segment(marks, SPEC, network).candidates)

    tracemalloc.start()
    look()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * MIB
    assert candidates <= MOST_CANDIDATES
    assert min(cost_of(look) for _ in range(2)) + candidates * CANDIDATE_S < 1


@pytest.mark.parametrize("case", COSTLY)
def test_preparing_ends_soon(case: str):
    picture = Image.fromarray(COSTLY[case]())
    assert cost_of(lambda: prepare(picture, SPEC)) < 0.7


@pytest.mark.parametrize("shape", [(5, 20_000), (20_000, 5)])
def test_a_hairline_is_not_widened_pixel_by_pixel(shape: tuple[int, int]):
    coverage = np.zeros(shape, np.uint8)
    coverage[2:-2, 2:-2] = 255
    extent = (2, shape[0] - 2, 2, shape[1] - 2)
    assert cost_of(lambda: centre(coverage, extent, (28, 28))) < 0.3
    assert centre(coverage, extent, (28, 28)).max() == 255


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]
TRANSPARENT = ["1+", "L+", "P+"]  # by what is told beside the pixels
# In a process of its own, for Pillow's memory is in no list of Python's.
MEASURE = """
import sys
from PIL import Image
from model.modalities.digits.form import prepare
from model.modalities.digits.modality import SPEC

def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

mode, size = sys.argv[1], (int(sys.argv[2]), int(sys.argv[3]))
prepare(Image.new("RGBA", (300, 300)), SPEC)
picture = Image.new(mode.removesuffix("+"), size, 0)
if mode.endswith("+"):
    picture.info["transparency"] = 0
before = peak()
prepare(picture, SPEC)
print(peak() - before)
"""


@pytest.mark.parametrize("size", [(5000, 5000), (PIXELS // 2, 2), (2, PIXELS // 2)])
@pytest.mark.parametrize("mode", [*MODES, *TRANSPARENT])
def test_a_large_picture_is_never_converted_whole(mode: str, size: tuple[int, int]):
    command = [sys.executable, "-c", MEASURE, mode, *map(str, size)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 50 * 1024  # KiB; four bytes for each pixel are 97,000


@pytest.mark.parametrize("size", [(2600, 1300), (1300, 2600), (30_001, 100), (7, 300_000)])
@pytest.mark.parametrize(("mode", "same"), [("P", "RGB"), ("CMYK", "RGB"), ("I;16", "I")])
def test_bands_are_as_the_whole(mode: str, same: str, size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    picture = Image.fromarray(noise).convert(mode)
    part = (size[0] // 5, size[1] // 7, size[0] - 1, size[1] - size[1] // 6)
    for most in (2**14, 600_000):
        whole, scale = to_grey(picture.convert(same), most)
        assert whole.size <= 2 * most
        assert scale > 1
        np.testing.assert_array_equal(to_grey(picture, most)[0], whole)
        np.testing.assert_array_equal(
            to_grey(picture, most, part)[0], to_grey(picture.convert(same).crop(part), most)[0]
        )


def test_a_component_alone_is_as_among_all():
    mask = noise(90, 70, 0.4, 1) == 0
    components = Components(mask)
    assert components.count > 5
    for number in range(components.count):
        chosen = np.arange(components.count) == number
        top, bottom, left, right = components.box(chosen)
        whole = components.mask(chosen)
        np.testing.assert_array_equal(components.part(number), whole[top:bottom, left:right])
        assert whole.sum() == components.area[number]
