"""What a picture's ground is, so that what is left is ink: page edges, light, noise, polarity."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.uint8]  # (H, W)

# What a line of the digit is narrower than, as a share of the side of a square of the same area.
WIDEST_LINE = 0.36
# Of the area that is called ink, against the length of the edges that are left in the ground.
AREA_COST = 1.5
SHARP = 40  # how much darker than the page an edge beside it is within five pixels
NOISE = 3  # deviation of the noise that is smoothed


def without_edges(grey: Grey, thumbnail: bool) -> Grey:
    """What a scanner sees beside the page, painted over with the page next to it."""
    height, width = grey.shape
    if thumbnail or min(height, width) < 20:
        return grey
    inner = np.sort(
        grey[height // 8 : -(height // 8) : 4, width // 8 : -(width // 8) : 4], axis=None
    )
    page = int(inner[len(inner) // 2])
    for side in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        if np.count_nonzero(np.abs(side.astype(np.int16) - page) > 64) > 0.9 * len(side):
            break
    else:
        return grey
    for _ in range(4):
        length = grey.shape[1]
        deepest = length // 6
        strip = grey[:, : deepest + 1]
        beside = np.maximum(strip, page) - np.minimum(strip, page) > 64
        if beside[:, 0].mean() > 0.9:
            depth = np.where(beside.all(axis=1), deepest, beside.argmin(axis=1))
            # A wider fall into darkness is no edge; nor is a stroke that runs out of the picture.
            if np.median(depth) < deepest:
                page_at = np.minimum(depth + 2, length - 1)[:, None]
                dark_at = np.maximum(depth - 2, 0)[:, None]
                ends = np.take_along_axis(grey, np.hstack([page_at, dark_at]), axis=1)
                if np.median(np.abs(np.diff(ends.astype(np.int16)))) > SHARP:
                    inside = np.maximum(np.arange(length), page_at)
                    grey = np.take_along_axis(grey, inside, axis=1)
        grey = np.rot90(grey)
    return np.ascontiguousarray(grey)


def evenly_lit(grey: Grey) -> Grey:
    """Divided by a smooth fall of light over the picture, where there is one."""
    height, width = grey.shape
    if min(height, width) < CELLS:
        return grey
    small = Image.fromarray(grey).resize((CELLS, CELLS), Image.Resampling.BOX)
    level = np.asarray(small).ravel().astype(np.float32)
    before = _usual(np.abs(level - _usual(level)))
    if before < 3:
        return grey
    weight: NDArray[np.floating] = np.ones_like(level)
    for _ in range(4):  # pixels far from the surface count little: ink, and shadows with edges
        weighted = (TERMS * weight[:, None]).T
        surface = np.linalg.solve(weighted @ TERMS + RIDGE, weighted @ level)
        fit = TERMS @ surface
        off = np.abs(level - fit)
        after = _usual(off)
        weight = 1 / (1 + (off / max(1.0, 2 * after)) ** 2) ** 2
    if after > 0.25 * before or fit.min() < 16:
        return grey
    light = _terms(height, width) @ surface
    bright = grey.ravel() * (float(fit.max()) / light.clip(16))
    return bright.clip(0, 255).astype(np.uint8).reshape(height, width)


def _usual(values: NDArray[np.floating]) -> float:
    return float(np.sort(values)[len(values) // 2])


def _terms(height: int, width: int) -> NDArray[np.float32]:
    """Terms of a quadratic surface at each pixel (H * W, 6)."""
    y = np.repeat(np.linspace(-1, 1, height, dtype=np.float32), width)
    x = np.tile(np.linspace(-1, 1, width, dtype=np.float32), height)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


# Cells along each side that the fall of light is fitted to.
CELLS = 16
TERMS = _terms(CELLS, CELLS)
RIDGE = np.float32(1e-3) * np.eye(6, dtype=np.float32)


def denoised(grey: Grey) -> tuple[Grey, float]:
    """Smoothed where there is noise, and the deviation of what is left of it."""
    if grey.shape[1] < 3 or grey.shape[0] < 3:
        return grey, 0.0
    one, other = grey[::2, 1:], grey[::2, :-1]
    steps = np.sort((np.maximum(one, other) - np.minimum(one, other))[:, ::2], axis=None)
    noise = float(steps[len(steps) // 2]) / 0.954  # of a difference, the median's share
    if noise < NOISE:
        return grey, noise
    wide = grey.astype(np.uint16)
    wide[1:-1] = (wide[:-2] + 2 * wide[1:-1] + wide[2:] + 2) >> 2
    wide[:, 1:-1] = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:] + 2) >> 2
    return wide.astype(np.uint8), noise * 0.375


def contrasts(grey: Grey, thumbnail: bool) -> Iterator[Grey]:
    """How far each pixel is from its ground: of dark and of light ink, the likelier first.

    The ground is what is left when lines narrower than `WIDEST_LINE` are taken away. That of the
    right polarity is the smoother one, and less was taken away for it.
    """
    height, width = grey.shape
    half = np.asarray(Image.fromarray(grey).reduce(2))
    side = min(np.sqrt(half.size), 2 * min(half.shape))
    reach = max(2, round(WIDEST_LINE * side))
    padded = _padded(half, reach, thumbnail)
    inner = slice(reach, reach + half.shape[0]), slice(reach, reach + half.shape[1])
    light, dark = _closed(padded, reach)[inner], 255 - _closed(255 - padded, reach)[inner]
    costs = [
        _variation(ground) + AREA_COST * float(taken.sum()) / reach
        for ground, taken in (
            (light, light - np.minimum(half, light)),
            (dark, np.maximum(half, dark) - dark),
        )
    ]
    for ink_is_dark in (True, False) if costs[0] <= costs[1] else (False, True):
        ground = light if ink_is_dark else dark
        # Light multiplies, so what counts of dark ink is the share of light that it swallows.
        gain = 255 / np.maximum(ground, 40).astype(np.float32) if ink_is_dark else None
        ground = ground.repeat(2, 0).repeat(2, 1)[:height, :width]
        if gain is None:
            yield np.maximum(grey, ground) - ground
        else:
            gain = gain.repeat(2, 0).repeat(2, 1)[:height, :width]
            gain *= ground - np.minimum(grey, ground)
            yield np.minimum(gain, 255).astype(np.uint8)


def _padded(grey: Grey, reach: int, thumbnail: bool) -> Grey:
    """Ground beyond the edges: their usual shade where they have one, else each pixel's own."""
    ring = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    shade = int(np.sort(ring)[len(ring) // 2])
    height, width = grey.shape
    padded = np.full((height + 2 * reach, width + 2 * reach), shade, np.uint8)
    padded[reach:-reach, reach:-reach] = grey
    usual = np.count_nonzero(np.maximum(ring, shade) - np.minimum(ring, shade) < 26)
    if not thumbnail and usual < 0.8 * len(ring):
        padded[reach:-reach, :reach] = grey[:, :1]
        padded[reach:-reach, -reach:] = grey[:, -1:]
        padded[:reach] = padded[reach]
        padded[-reach:] = padded[-reach - 1]
    return padded


def _closed(grey: Grey, reach: int) -> Grey:
    """Closing with a square: dark details narrower than `reach` are filled from around them."""
    return 255 - _highest(255 - _highest(grey, reach), reach)


def _highest(grey: Grey, reach: int) -> Grey:
    """Largest value in a square window of odd side about each pixel; (H, W), so is the result."""
    half = reach // 2
    height, width = grey.shape
    best = np.zeros((height + 2 * half, width + 2 * half), np.uint8)
    best[half : half + height, half : half + width] = grey
    covered = 1
    while covered <= 2 * half:  # windows as long as two of half the length, one after the other
        step = min(covered, 2 * half + 1 - covered)
        best = np.maximum(best[:-step], best[step:])
        best = np.maximum(best[:, :-step], best[:, step:])
        covered += step
    return best


def _variation(grey: Grey) -> int:
    """Sum of the steps between neighbours."""
    down, across = (grey[1:], grey[:-1]), (grey[:, 1:], grey[:, :-1])
    return sum(int((np.maximum(*pair) - np.minimum(*pair)).sum()) for pair in (down, across))
