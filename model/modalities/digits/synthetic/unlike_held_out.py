"""Pictures that show no digit, drawn by chance: the novelty score is measured on them.

None of these kinds is among those that the novelty head learns from, which are in `unlike`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.data.labelled import Labelled
from model.modalities.digits.synthetic import unlike
from model.modalities.digits.synthetic.unlike import Digits, Kind

SYMBOLS = "@#$%&*+=?!§¶€£¥~^<>{}[]♠♣♥♦♪☺→↑⇔∞∑∫√≈≠∀∃"


def words(random: np.random.Generator, digits: Digits) -> Image.Image:
    """Three to nine letters in a row."""
    return unlike.written(
        "".join(random.choice(list(unlike.LATIN), random.integers(3, 10))), random
    )


def symbols(random: np.random.Generator, digits: Digits) -> Image.Image:
    """One sign: punctuation, currency, arrows, mathematics."""
    return unlike.written(random.choice(list(SYMBOLS)), random, unlike.fonts("DejaVuSans"))


def scribbles(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A doodle of one to four Bezier curves that wind about, as with a pen."""
    picture, pen, ink = unlike.page(random)
    side = picture.width
    for _ in range(random.integers(1, 5)):
        knots = random.uniform(0.12, 0.88, (random.integers(5, 9), 2)) * side
        unlike.curve(pen, _bezier(knots), ink, random.uniform(0.015, 0.06) * side)
    return picture.filter(ImageFilter.GaussianBlur(0.7))


def blank(random: np.random.Generator, digits: Digits) -> Image.Image:
    """An empty page of one colour, bare or with a camera's faint noise."""
    side = int(random.integers(16, 300))
    level = int(random.integers(0, 256))
    empty = np.full((side, side), float(level))
    if random.random() < 0.5:
        empty += random.normal(0, random.uniform(0.3, 2.0), empty.shape)
    return unlike.picture_of(empty)


def noise(random: np.random.Generator, digits: Digits) -> Image.Image:
    """White, speckled or cloudy noise, grey or in colour."""
    side = int(random.choice([28, 28, 64, 128, 200]))
    colours = (3,) if random.random() < 0.3 else ()
    style = random.integers(3)
    if style == 0:
        return unlike.picture_of(random.uniform(0, 255, (side, side, *colours)))
    if style == 1:
        rate = random.uniform(0.05, 0.5)
        return unlike.picture_of(255.0 * (random.random((side, side, *colours)) < rate))
    coarse = random.uniform(0, 255, (side // 8 + 2, side // 8 + 2, *colours))
    return unlike.picture_of(coarse).resize((side, side), Image.Resampling.BICUBIC)


def textures(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A piece of a photographed surface: bricks, grass, gravel."""
    from skimage import data

    taken: tuple[Any, ...] = (data.brick, data.grass, data.gravel)
    return _crop(taken[int(random.integers(3))](), random, least=40)


def photos(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A piece of a photograph: an astronaut, a cat, a cameraman, a cup of coffee, a rocket."""
    from skimage import data

    taken: tuple[Any, ...] = (data.astronaut, data.chelsea, data.camera, data.coffee, data.rocket)
    return _crop(taken[int(random.integers(len(taken)))](), random, least=150)


def faces(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A face of Labelled Faces in the Wild, enlarged from 25x25 pixels."""
    from skimage import data

    face = data.lfw_subset()[random.integers(100)]  # the second hundred shows no faces
    side = int(random.choice([25, 50, 100]))
    return unlike.picture_of(face * 255).resize((side, side), Image.Resampling.BICUBIC)


def codes(random: np.random.Generator, digits: Digits) -> Image.Image:
    """Black and white modules on a grid, as in a QR code, with its corner squares."""
    modules = int(random.integers(16, 30))
    grid = random.random((modules, modules)) < 0.5
    finder = np.ones((7, 7), dtype=bool)
    finder[1:6, 1:6] = False
    finder[2:5, 2:5] = True
    for row, column in ((0, 0), (0, modules - 7), (modules - 7, 0)):
        grid[row : row + 7, column : column + 7] = finder
    scale = int(random.integers(2, 8))
    code = np.pad(255.0 * ~grid, 2, constant_values=255).repeat(scale, 0).repeat(scale, 1)
    return unlike.picture_of(code)


def shuffled_pixels(random: np.random.Generator, digits: Digits) -> Image.Image:
    """All pixels of a digit in any order."""
    mixed = random.permutation(unlike.any_digit(random, digits).ravel()).reshape(28, 28)
    return unlike.on_paper(mixed, random)


def mirrored(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A digit as a mirror shows it."""
    return unlike.on_paper(unlike.any_digit(random, digits)[:, ::-1], random)


def upside_down(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A digit on its head."""
    return unlike.on_paper(unlike.any_digit(random, digits)[::-1, ::-1], random)


# Those that are no digits any more.
_MADE_OF: dict[Kind, tuple[int, ...]] = {mirrored: (2, 3, 4, 5, 6, 7, 9), upside_down: (3, 4, 7)}


def material(kind: Kind, digits: Labelled) -> Digits:
    """The digits that a kind may spoil, which nothing that is a digit too is made of."""
    images: Digits = digits.inputs[np.isin(digits.labels, _MADE_OF.get(kind, range(10))), 0]
    return images


KINDS: tuple[Kind, ...] = (
    words,
    symbols,
    scribbles,
    blank,
    noise,
    textures,
    photos,
    faces,
    codes,
    shuffled_pixels,
    mirrored,
    upside_down,
)


def _bezier(knots: NDArray[np.float64], samples: int = 80) -> NDArray[np.float64]:
    """The Bezier curve of control points (K, 2), by de Casteljau: (samples, 2)."""
    at = np.linspace(0, 1, samples)[:, None, None]
    points: NDArray[np.float64] = np.broadcast_to(knots, (samples, *knots.shape))
    while points.shape[1] > 1:
        points = points[:, :-1] * (1 - at) + points[:, 1:] * at
    return points[:, 0]


def _crop(whole: NDArray[np.uint8], random: np.random.Generator, least: int) -> Image.Image:
    """A square piece of a photograph."""
    side = int(random.integers(least, min(whole.shape[:2]) + 1))
    top, left = (int(random.integers(0, n - side + 1)) for n in whole.shape[:2])
    return Image.fromarray(whole[top : top + side, left : left + side])
