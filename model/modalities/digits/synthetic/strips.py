"""Number strips made of single digits: the reading of numbers learns and is measured on them.

A strip is a line of digits on paper, as on an envelope, a form or a meter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.data.labelled import Labelled

Ink = NDArray[np.float32]  # (H, W), 0 to 1

SIDE = 28  # of MNIST's images
MARGIN = 16
LONGEST_TRAINED = 7  # digits in a strip to learn from


@dataclass(frozen=True)
class Style:
    """How strips are written; lengths in pixels of MNIST's images, ranges are drawn from evenly."""

    # Between the ink of two digits where they come closest; negative: it overlaps by so much.
    gap: tuple[float, float] = (3.0, 8.0)
    drift: float = 1.0  # of a digit above or below the line, at most
    size: float = 0.08  # a digit's against the next one's, as a factor of 1 +- `size`
    slant: float = 0.0  # shear of the whole strip, at most; 0.2 leans by a fifth of the height
    tilt: float = 0.0  # degrees that the strip is turned by, at most
    noise: float = 0.0  # standard deviation of the grey values, of 255
    ruled: bool = False  # whether lines run below and above the digits, and through the picture
    scale: tuple[float, float] = (1.0, 3.0)  # enlargement of the whole
    pen: float = 0.0  # share of the digits redrawn with a thicker or a thinner pen


PLAIN = Style()
STYLES: Mapping[str, Style] = {
    "separated": PLAIN,
    "slanted": replace(PLAIN, slant=0.35, tilt=4.0),
    "noisy": replace(PLAIN, noise=20.0),
    "ruled": replace(PLAIN, ruled=True),
    "touching": replace(PLAIN, gap=(-2.0, 0.0)),
    "all at once": Style(gap=(-1.5, 6.0), slant=0.2, tilt=3.0, noise=12.0, ruled=True),
}


def any_style(random: np.random.Generator) -> Style:
    """One drawn by chance, from far apart to overlapping; to learn from."""
    closest = random.uniform(-3, 3) if random.random() < 0.65 else -2.0
    return Style(
        gap=(closest, closest + random.choice([0.0, 2.5, random.uniform(0, 6)])),
        drift=random.uniform(0, 3),
        size=random.uniform(0, 0.2),
        slant=random.uniform(0, 0.35),
        tilt=random.uniform(0, 4),
        noise=random.uniform(0, 20) if random.random() < 0.4 else 0.0,
        ruled=random.random() < 0.15,
        scale=(1.0, 1.0) if random.random() < 0.2 else (1.0, 3.0),
        pen=random.choice([0.0, 0.4]),
    )


@dataclass(frozen=True)
class Strip:
    """A picture of a number."""

    picture: Image.Image
    text: str
    owner: NDArray[np.uint8]  # of each pixel, (H, W): 1 for the first digit's ink, 0 for none


def write(digits: Labelled, length: int, style: Style, random: np.random.Generator) -> Strip:
    """A strip of `length` digits drawn by chance; `length` below 255."""
    chosen = random.integers(len(digits), size=length)
    images = [digits.inputs[i, 0] for i in chosen]
    if style.pen:
        images = [_redrawn(i, random) if random.random() < style.pen else i for i in images]
    line, owner = _line(images, style, random)
    scale = random.uniform(*style.scale)
    shear = random.uniform(-style.slant, style.slant)
    angle = random.uniform(-style.tilt, style.tilt)
    ink, owner = (
        np.asarray(_transformed(Image.fromarray(np.pad(layer, MARGIN)), scale, shear, angle, how))
        for layer, how in (
            ((line * 255).astype(np.uint8), Image.Resampling.BICUBIC),
            (owner, Image.Resampling.NEAREST),
        )
    )
    ink = ink.astype(np.float32) / 255
    if style.ruled:
        ink = np.maximum(ink, _rules(ink.shape, random))
    dark_on_light = random.random() < 0.7
    ground, stroke = random.uniform(190, 255), random.uniform(0, 80)
    if not dark_on_light:
        ground, stroke = stroke, ground
    grey = ground + (stroke - ground) * ink + random.normal(0, 1, ink.shape) * style.noise
    text = "".join(str(digits.labels[i]) for i in chosen)
    return Strip(Image.fromarray(grey.clip(0, 255).astype(np.uint8)), text, owner)


def _redrawn(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """With a thicker or, where that leaves something, a thinner pen, by half a pixel each side."""
    large = Image.fromarray(image).resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
    pen = ImageFilter.MaxFilter(3) if random.random() < 0.5 else ImageFilter.MinFilter(3)
    drawn = np.asarray(large.filter(pen).resize((SIDE, SIDE), Image.Resampling.BOX))
    return drawn if drawn.max() > 150 else image


def training_strip(
    digits: Labelled, index: int, random: np.random.Generator, longest: int = LONGEST_TRAINED
) -> Strip:
    """A strip to learn from: of the styles in turn, and as often of any style."""
    styles = list(STYLES.values())
    style = styles[index // 2 % len(styles)] if index % 2 else any_style(random)
    return write(digits, int(random.integers(1, longest + 1)), style, random)


def _line(
    images: list[NDArray[np.uint8]], style: Style, random: np.random.Generator
) -> tuple[Ink, NDArray[np.uint8]]:
    """The digits side by side, as close as the style has them, and whose each pixel is."""
    line: Ink = np.zeros((2 * SIDE, 0), np.float32)
    owner = np.zeros((2 * SIDE, 0), np.uint8)
    for number, image in enumerate(images, 1):
        side = max(8, round(SIDE * random.uniform(1 - style.size, 1 + style.size)))
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        digit = (np.asarray(resized) / 255).astype(np.float32)
        top = round((2 * SIDE - side) / 2 + random.uniform(-style.drift, style.drift))
        digit = np.pad(digit, ((top, 2 * SIDE - side - top), (0, 0)))
        inked = np.flatnonzero((digit > 0.3).any(axis=0))
        digit = digit[:, inked[0] : inked[-1] + 1]
        start = 0
        if number > 1:
            gap = round(random.uniform(*style.gap)) - _distance(line, digit)
            start = max(0, line.shape[1] + gap)
        grown = max(0, start + digit.shape[1] - line.shape[1])
        line = np.pad(line, ((0, 0), (0, grown)))
        owner = np.pad(owner, ((0, 0), (0, grown)))
        part = (slice(None), slice(start, start + digit.shape[1]))
        owner[part][(digit > 0.3) & (digit > line[part])] = number
        line[part] = np.maximum(line[part], digit)
    return line, owner


def _distance(left: Ink, right: Ink) -> int:
    """Columns between the ink of two, set edge to edge, in the row where they are closest.

    A row speaks for its neighbours too: pens have a width.
    """
    least = 2 * SIDE
    behind = np.where((left > 0.3).any(1), (left > 0.3)[:, ::-1].argmax(1), 2 * SIDE)
    ahead = np.where((right > 0.3).any(1), (right > 0.3).argmax(1), 2 * SIDE)
    for shift in (-1, 0, 1):
        least = min(least, int((behind + np.roll(ahead, shift)).min()))
    return least


def _transformed(
    layer: Image.Image, scale: float, shear: float, angle: float, how: Image.Resampling
) -> Image.Image:
    """Enlarged, sheared and turned."""
    width, height = round(layer.width * scale), round(layer.height * scale)
    layer = layer.resize((width, height), how)
    extra = round(abs(shear) * height)
    matrix = (1, shear, -extra if shear > 0 else 0, 0, 1, 0)
    layer = layer.transform((width + extra, height), Image.Transform.AFFINE, matrix, how)
    return layer.rotate(angle, how, expand=True)


def _rules(shape: tuple[int, int], random: np.random.Generator) -> Ink:
    """Printed lines from side to side, thinner and paler than ink, below and above the digits."""
    rules = np.zeros(shape, np.float32)
    height = shape[0]
    spacing = random.uniform(0.45, 0.7) * height
    thickness = int(random.integers(1, 3))
    first = random.uniform(0.55, 0.95) * height % spacing
    for at in np.arange(first, height - thickness, spacing):
        rules[int(at) : int(at) + thickness] = random.uniform(0.5, 0.9)
    return rules
