"""Pictures that show no digit, drawn by chance: the novelty head learns to tell them from digits.

Each kind is a function of a random generator and of digits, which some kinds spoil. The kinds that
measure the result are others, in `unlike_held_out`. Letters that many hands write like a digit are
left out: B b 8, D O o Q q 0 9, G 6, g 9, I i l 1, S s 5, T 7, U u V v 0, y Y 4, Z z 2, and their
likes in other alphabets. `DIGIT_KINDS` are the other side: digits as no hand of MNIST's wrote them.
"""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Digits = NDArray[np.uint8]  # (N, 28, 28), light strokes on black
Kind = Callable[[np.random.Generator, Digits], Image.Image]

LATIN = "ACEFHJKLMNPRWXacdefhjkmnprtwx"
OTHER_ALPHABETS = "ΓΔΛΞΠΣΦΨΩαβδεζηθλμνξπφψωБГДЖЛПФЦШЩЫЭЮЯбджфшэюя"


def draw(kind: Kind, count: int, digits: Digits, seed: int = 0) -> list[Image.Image]:
    """`count` pictures of a kind, the same for the same seed and digits."""
    name = kind.__name__.encode()
    return [kind(np.random.default_rng([seed, index, *name]), digits) for index in range(count)]


def letters(random: np.random.Generator, digits: Digits) -> Image.Image:
    """One Latin letter in any of many fonts, upright or a little turned."""
    return written(random.choice(list(LATIN)), random)


def foreign_letters(random: np.random.Generator, digits: Digits) -> Image.Image:
    """One Greek or Cyrillic letter."""
    return written(random.choice(list(OTHER_ALPHABETS)), random, fonts("DejaVu"))


def hatching(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A shape of many strokes to and fro, as one crosses a thing out."""
    picture, pen, ink = page(random)
    side = picture.width
    turns = random.integers(5, 12)
    along = np.linspace(0.15, 0.85, 2 * turns)
    across = 0.5 + random.uniform(0.15, 0.35) * (-1.0) ** np.arange(2 * turns)
    points = np.stack([along, across + random.normal(0, 0.04, 2 * turns)], axis=1) * side
    curve(pen, _turned(points, random.uniform(0, np.pi), side), ink, 0.02 * side)
    return picture


def shapes(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A regular polygon or star of 3 to 8 corners, outlined or filled, or a cross."""
    picture, pen, ink = page(random)
    side = picture.width
    corners = int(random.integers(3, 9))
    star = random.random() < 0.4
    steps = np.arange(corners * (1 + star))
    radii = np.where(star & (steps % 2 == 1), random.uniform(0.1, 0.2), random.uniform(0.28, 0.4))
    angles = 2 * np.pi * steps / len(steps) + random.uniform(0, 2 * np.pi)
    points = (0.5 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)) * side
    if random.random() < 0.2:
        width = random.uniform(0.02, 0.12) * side
        arm = np.array([[-0.35, 0.0], [0.35, 0.0]]) * side + side / 2
        for turn in (angles[0], angles[0] + random.uniform(0.4, 0.6) * np.pi):
            curve(pen, _turned(arm, turn, side), ink, width)
    elif random.random() < 0.5:
        pen.polygon([tuple(point) for point in points], fill=ink)
    else:
        curve(pen, np.concatenate([points, points[:2]]), ink, random.uniform(0.02, 0.06) * side)
    return picture


def gradients(random: np.random.Generator, digits: Digits) -> Image.Image:
    """Nothing but a smooth change of light over the page: along a line or from a point."""
    side = int(random.integers(28, 200))
    down, across = np.mgrid[:side, :side] / side
    angle = random.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * across + np.sin(angle) * down
    centre = random.uniform(0, 1, 2)
    glow = np.hypot(across - centre[0], down - centre[1])
    light = ramp if random.random() < 0.5 else glow
    low, high = random.uniform(0, 255, 2)
    return picture_of(low + (high - low) * (light - light.min()) / np.ptp(light))


def ripples(random: np.random.Generator, digits: Digits) -> Image.Image:
    """Waves of two or three directions over one another: cloth, bars, water."""
    side = int(random.integers(28, 200))
    down, across = np.mgrid[:side, :side] / side
    waves = np.zeros((side, side))
    for _ in range(random.integers(1, 4)):
        angle, frequency = random.uniform(0, np.pi), random.uniform(2, 14)
        along = np.cos(angle) * across + np.sin(angle) * down
        waves += np.sin(2 * np.pi * (frequency * along + random.random()))
    if random.random() < 0.4:
        waves = np.sign(waves)
    return picture_of(128 + 127 * waves / np.abs(waves).max())


def shuffled_digits(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A digit cut into 4 or 16 pieces that changed places."""
    parts = int(random.choice([2, 4]))
    size = 20 // parts
    box = any_digit(random, digits)[4:24, 4:24].reshape(parts, size, parts, size).swapaxes(1, 2)
    pieces = box.reshape(parts * parts, size, size)
    order = random.permutation(parts * parts)
    while np.array_equal(order, np.arange(parts * parts)):
        order = random.permutation(parts * parts)
    mixed = pieces[order].reshape(parts, parts, size, size).swapaxes(1, 2).reshape(20, 20)
    return on_paper(np.pad(mixed, 4), random)


def joined_digits(random: np.random.Generator, digits: Digits) -> Image.Image:
    """Two digits, one leaning into the other: a number, or a digit crossed out by another."""
    first, second = any_digit(random, digits), any_digit(random, digits)
    shift = int(random.integers(4, 13))
    wide = np.maximum(np.pad(first, ((0, 0), (0, shift))), np.pad(second, ((0, 0), (shift, 0))))
    return on_paper(wide, random)


def printed_digits(random: np.random.Generator, digits: Digits) -> Image.Image:
    """One digit in any of many fonts, upright or a little turned."""
    return written(str(random.integers(10)), random)


def bars(random: np.random.Generator, digits: Digits) -> Image.Image:
    """A straight line with a pen or a marker, upright or leaning: many write a one so."""
    picture, pen, ink = page(random)
    side = picture.width
    half, lean = random.uniform(0.12, 0.42), random.uniform(-0.3, 0.3) * random.random()
    ends = (0.5 + half * np.array([[lean, -1.0], [-lean, 1.0]])) * side
    curve(pen, ends, ink, random.uniform(0.08, 0.4) * half * side)
    return picture


DIGIT_KINDS: tuple[Kind, ...] = (printed_digits, bars)
TRAINING_KINDS: tuple[Kind, ...] = (
    letters,
    foreign_letters,
    hatching,
    shapes,
    gradients,
    ripples,
    shuffled_digits,
    joined_digits,
)


@functools.cache
def fonts(family: str = "") -> tuple[str, ...]:
    """Files of matplotlib's own fonts whose name begins so, but those that lack letters."""
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    lacking = re.compile("Siz|NonUni|LastResort|Display|cmex|cmsy")
    files = sorted(folder.glob(f"{family}*.ttf"))
    return tuple(str(file) for file in files if not lacking.search(file.name))


def written(
    text: str, random: np.random.Generator, choice: Sequence[str] | None = None
) -> Image.Image:
    """Type in the middle of a page of its own size, dark on light or light on dark."""
    file = str(random.choice(choice or fonts()))
    font = ImageFont.truetype(file, int(random.integers(30, 120)))
    left, top, right, bottom = font.getbbox(text)
    margin = int(bottom - top) // 2 + 6
    ink = Image.new("L", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin))
    ImageDraw.Draw(ink).text((margin - left, margin - top), text, fill=255, font=font)
    ink = ink.rotate(random.uniform(-12, 12), Image.Resampling.BICUBIC)
    return on_paper(np.asarray(ink), random)


def on_paper(ink: NDArray[np.uint8], random: np.random.Generator) -> Image.Image:
    """Ink (H, W), 255 where it is full, on a ground of another grey; a third light on dark."""
    dark, light = random.uniform(0, 90), random.uniform(180, 255)
    ground, stroke = (dark, light) if random.random() < 1 / 3 else (light, dark)
    return picture_of(ground + (stroke - ground) * (ink / 255.0))


def page(random: np.random.Generator) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """An empty page, a pen for it, and ink."""
    side = int(random.integers(60, 200))
    picture = Image.new("L", (side, side), int(random.integers(200, 256)))
    return picture, ImageDraw.Draw(picture), int(random.integers(0, 80))


def curve(pen: ImageDraw.ImageDraw, points: NDArray[np.float64], ink: int, width: float) -> None:
    """A line through points (K, 2)."""
    pen.line(
        [tuple(point) for point in points], fill=ink, width=max(1, round(width)), joint="curve"
    )


def any_digit(random: np.random.Generator, digits: Digits) -> NDArray[np.uint8]:
    """One of the digits (28, 28)."""
    digit: NDArray[np.uint8] = digits[random.integers(len(digits))]
    return digit


def picture_of(values: NDArray[np.floating]) -> Image.Image:
    """Grey or colour values, cut to [0, 255]."""
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _turned(points: NDArray[np.float64], angle: float, side: int) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    turned: NDArray[np.float64] = (points - side / 2) @ np.array([[cos, sin], [-sin, cos]])
    return turned + side / 2
