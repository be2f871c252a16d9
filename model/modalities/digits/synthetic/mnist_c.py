"""The fifteen corruptions of MNIST-C (Mu and Gilmer, 2019, arXiv:1906.02337), for measuring only.

Written from the paper's description, at the strengths the authors published; only the random draws
differ from their data set. Training sees other damage, never these.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import canny

Images = NDArray[np.uint8]  # (N, 28, 28), light digits on black
Greys = NDArray[np.float32]  # (N, 28, 28), in [0, 1]
Corruption = Callable[[Greys, np.random.Generator], Greys]

SIDE = 28

# Ink of a drawn line falls from 1 at its middle to 0 at 1.45 pixels: 1 + log(1 - distance / 2.3).
LINE_REACH = 2.3


def corrupt(images: Images, name: str, seed: int = 0) -> Images:
    """Corrupts each image in the way that `CORRUPTIONS` names, the same for the same seed.

    Raises:
        KeyError: there is no such corruption.
        ValueError: the images are not 28x28.
    """
    if images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"images must have shape (N, {SIDE}, {SIDE}), not {images.shape}")
    damage = CORRUPTIONS[name]
    generator = np.random.default_rng([seed, *name.encode()])
    corrupted = damage((images / 255).astype(np.float32), generator)
    return (corrupted.clip(0, 1) * 255).astype(np.uint8)


def shot_noise(images: Greys, generator: np.random.Generator) -> Greys:
    """Poisson noise of a sensor that counts three photons for white."""
    photons = 3
    return (generator.poisson(images * photons) / photons).astype(np.float32)


def impulse_noise(images: Greys, generator: np.random.Generator) -> Greys:
    """Of all pixels 17 % set, half of them to white and half to black."""
    chance = generator.random(images.shape)
    return np.where(chance < 0.085, 0, np.where(chance < 0.17, 1, images))


def glass_blur(images: Greys, generator: np.random.Generator) -> Greys:
    """A blur, two rounds of swapping pixels with a near one, a blur again."""
    sigma, reach, rounds = 0.7, 1, 2
    glass = _blur(images, sigma)
    everyone = np.arange(len(glass))
    inside = range(SIDE - reach, reach, -1)
    for _ in range(rounds):
        for row, column in ((r, c) for r in inside for c in inside):
            move = generator.integers(-reach, reach, (2, len(glass)))
            move *= generator.random(len(glass)) < 0.5
            there = everyone, row + move[0], column + move[1]
            swapped = glass[there]
            glass[there] = glass[:, row, column]
            glass[:, row, column] = swapped
    return _blur(glass, sigma)


def motion_blur(images: Greys, generator: np.random.Generator) -> Greys:
    """A trail along a line within 45 degrees of horizontal, fading as a half Gaussian of 3 pixels.

    As ImageMagick does it: the trail leads one way and lies on whole pixels.
    """
    reach, sigma = 10, 3.0
    steps = np.arange(2 * reach + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angles = np.radians(generator.uniform(-45, 45, len(images)))
    margin = len(steps)
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    everyone = np.arange(len(images))[:, None, None]
    rows, columns = np.indices((SIDE, SIDE)) + margin
    blurred = np.zeros_like(images)
    for step, weight in zip(steps, weights, strict=True):
        down = np.round(step * np.sin(angles)).astype(int)[:, None, None]
        across = np.round(step * np.cos(angles)).astype(int)[:, None, None]
        blurred += np.float32(weight) * padded[everyone, rows + down, columns + across]
    return blurred


def shear(images: Greys, generator: np.random.Generator) -> Greys:
    """Columns lean by 0.4 radians, to either side."""
    angle = 0.4
    maps = [
        np.array([[np.cos(side * angle), 0.0], [-np.sin(side * angle), 1.0]]) for side in (-1, 1)
    ]
    return _one_of(images, maps, generator)


def scale(images: Greys, generator: np.random.Generator) -> Greys:
    """Seven tenths of the size."""
    return _one_of(images, [np.eye(2) / 0.7], generator)


def rotate(images: Greys, generator: np.random.Generator) -> Greys:
    """A turn by 0.4 radians, either way."""
    cos, sin = np.cos(0.4), np.sin(0.4)
    maps = [np.array([[cos, side * sin], [-side * sin, cos]]) for side in (-1, 1)]
    return _one_of(images, maps, generator)


def brightness(images: Greys, generator: np.random.Generator) -> Greys:
    """Half of white added to every pixel."""
    return images + np.float32(0.5)


def translate(images: Greys, generator: np.random.Generator) -> Greys:
    """Three pixels along either axis, either way; what leaves is lost."""
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3)))
    corners = 6 * generator.integers(0, 2, (2, len(images), 1, 1))
    rows, columns = np.indices((SIDE, SIDE))
    moved: Greys = padded[
        np.arange(len(images))[:, None, None], rows + corners[0], columns + corners[1]
    ]
    return moved


def stripe(images: Greys, generator: np.random.Generator) -> Greys:
    """The left and the right quarter inverted."""
    columns = np.arange(SIDE)
    return np.where((columns < 7) | (columns >= 21), 1 - images, images)


def fog(images: Greys, generator: np.random.Generator) -> Greys:
    """Three parts of plasma-fractal clouds over one part of image."""
    density = 3.0
    peak = images.max(axis=(1, 2), keepdims=True)
    clouds = _clouds(len(images), generator)
    foggy: Greys = (images + density * clouds) * peak / (peak + density)
    return foggy


def spatter(images: Greys, generator: np.random.Generator) -> Greys:
    """Blots of dark grey mud that cover what they fall on."""
    wet = _blur(generator.normal(0.65, 0.3, images.shape).astype(np.float32), 1.0) > 0.65
    mud = _blur(wet.astype(np.float32), 1.5)
    mud[mud < 0.8] = 0
    return images * (1 - mud) + np.float32(63 / 255) * mud


def dotted_line(images: Greys, generator: np.random.Generator) -> Greys:
    """A straight line from edge to edge, two columns drawn and two left out in turn."""
    ends = generator.integers(0, 27, (len(images), 2))
    path = np.stack([np.tile([0.0, 27.0], (len(images), 1)), ends], axis=2)
    drawn = np.arange(SIDE) // 2 % 2
    return images + _ink(path) * drawn.astype(np.float32)


def zigzag(images: Greys, generator: np.random.Generator) -> Greys:
    """A zigzag line of 2 pixels' amplitude and 8 pixels' period, nearly horizontal."""
    first, last, amplitude, quarter = 2.0, 25.0, 2.0, 2.0
    start = generator.integers(0, 27, len(images))[:, None]
    slope = np.arctan(generator.integers(-5, 5, len(images)) / (last - first))[:, None]
    length = (last - first) / np.cos(slope)  # (N, 1), between 23 and 23.6
    turns = quarter * np.arange(1, 12, 2)  # six of them
    tops = amplitude * (-1.0) ** np.arange(len(turns))
    ones = np.ones_like(length)
    along = np.concatenate([0 * ones, turns * ones, length], axis=1)
    # The last stretch returns towards the axis, as far as the authors' does.
    off = np.concatenate([0 * ones, tops * ones, tops[-1] / (2 * (length - 20))], axis=1)
    cos, sin = np.cos(slope), np.sin(slope)
    path = np.stack([first + along * cos - off * sin, start + along * sin + off * cos], axis=2)
    return images + _ink(path)


def canny_edges(images: Greys, generator: np.random.Generator) -> Greys:
    """Edges alone (Canny, IEEE PAMI 8, 1986): sigma 1, thresholds 0.1 and 0.2 of Sobel's slope."""
    return np.stack([canny(image) for image in images]).astype(np.float32)


CORRUPTIONS: dict[str, Corruption] = {
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "shear": shear,
    "scale": scale,
    "rotate": rotate,
    "brightness": brightness,
    "translate": translate,
    "stripe": stripe,
    "fog": fog,
    "spatter": spatter,
    "dotted_line": dotted_line,
    "zigzag": zigzag,
    "canny_edges": canny_edges,
}


def _blur(images: Greys, sigma: float) -> Greys:
    return ndimage.gaussian_filter(images, (0, sigma, sigma), mode="nearest")


def _one_of(
    images: Greys, maps: Sequence[NDArray[np.float64]], generator: np.random.Generator
) -> Greys:
    """Each image through one of the maps (2, 2) from output to input (row, column), about its
    centre; bilinear, black outside."""
    warped = np.empty_like(images)
    choice = generator.integers(0, len(maps), len(images))
    centre = np.full(2, (SIDE - 1) / 2)
    for index, matrix in enumerate(maps):
        whole = np.eye(3)
        whole[1:, 1:] = matrix
        offset = np.concatenate([[0.0], centre - matrix @ centre])
        chosen = choice == index
        warped[chosen] = ndimage.affine_transform(images[chosen], whole, offset, order=1)
    return warped


def _clouds(count: int, generator: np.random.Generator) -> Greys:
    """(count, 28, 28) in [0, 1]: windows of large plasma fractals (diamond-square).

    A map of 256x256 repeats at its edges and serves 64 images, each with a window of its own.
    """
    clouds = []
    for _ in range(0, count, 64):
        tiles = _plasma(256, 1.4**2, generator).reshape(8, 32, 8, 32).swapaxes(1, 2)
        clouds.append(tiles.reshape(64, 32, 32)[:, :SIDE, :SIDE])
    return np.concatenate(clouds)[:count]


def _plasma(size: int, decay: float, generator: np.random.Generator) -> Greys:
    """(size, size) in [0, 1], periodic: each halving of the grid adds noise weaker by `decay`."""
    heights = np.zeros((1, 1), dtype=np.float32)
    amplitude = 1.0
    while len(heights) < size:
        length = len(heights)
        finer = np.empty((2 * length, 2 * length), dtype=np.float32)
        finer[::2, ::2] = heights
        noise = generator.uniform(-amplitude, amplitude, (3, length, length))
        below = np.roll(heights, -1, 0)
        centres = (heights + below + np.roll(heights + below, -1, 1)) / 4 + noise[0]
        finer[1::2, 1::2] = centres
        # A side's middle lies between two corners and two centres.
        finer[::2, 1::2] = (
            heights + np.roll(heights, -1, 1) + centres + np.roll(centres, 1, 0)
        ) / 4 + noise[1]
        finer[1::2, ::2] = (heights + below + centres + np.roll(centres, 1, 1)) / 4 + noise[2]
        heights = finer
        amplitude /= decay
    plasma: Greys = (heights - heights.min()) / np.ptp(heights)
    return plasma


def _ink(path: NDArray[np.float64]) -> Greys:
    """Ink in [0, 1] of lines through points (N, points, 2) as (column, row), columns rising.

    A pixel's distance from a stretch is taken along its column.
    """
    pixels = np.arange(SIDE)
    ink = np.zeros((len(path), SIDE, SIDE), dtype=np.float32)
    for (c0, r0), (c1, r1) in pairwise(path.transpose(1, 2, 0)):
        slope = ((r1 - r0) / (c1 - c0))[:, None]
        heights = r0[:, None] + slope * (pixels - c0[:, None])  # (N, columns)
        distance = np.abs(pixels[None, :, None] - heights[:, None]).clip(max=LINE_REACH - 1e-6)
        there = (pixels >= np.floor(c0)[:, None]) & (pixels < np.ceil(c1)[:, None])
        ink += (1 + np.log(1 - distance / LINE_REACH)).clip(min=0) * there[:, None]
    return ink.clip(0, 1)
