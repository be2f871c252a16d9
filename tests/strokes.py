"""Strokes as a hand draws them, traced from pictures of real handwriting."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Point = tuple[float, float]  # (x, y) in 0..1
Mask = NDArray[np.bool_]

# Neighbours clockwise from the north: P2 to P9 of Zhang and Suen.
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def trace(image: NDArray[np.uint8], scale: int = 4) -> list[list[Point]]:
    """The strokes whose ink a picture (H, W), light on black, shows; longest first."""
    big = np.kron(image, np.ones((scale, scale)))
    skeleton = thin(np.pad(big > 110, 1))
    height, width = skeleton.shape
    left = {(int(y), int(x)) for y, x in np.argwhere(skeleton)}
    strokes = []
    while left:
        # From an end where there is one, else from anywhere on a loop.
        at = min(left, key=lambda pixel: (len(_near(pixel, left)), pixel))
        path = [at]
        start = at
        left.remove(at)
        while near := _near(at, left):
            at = min(near, key=lambda pixel: _turn(path, pixel))
            path.append(at)
            left.remove(at)
        if len(path) > 2 * scale and max(abs(a - b) for a, b in zip(start, at, strict=True)) <= 3:
            path.append(start)  # closes the loop
        if len(path) >= 2 * scale:
            smooth = gaussian_filter1d(np.array(path, float), scale, axis=0, mode="nearest")
            points = np.concatenate([smooth[:: 2 * scale], smooth[-1:]])
            strokes.append([(float(x) / width, float(y) / height) for y, x in points])
    return sorted(strokes, key=len, reverse=True)


def thin(mask: Mask) -> Mask:
    """A one pixel wide skeleton (Zhang and Suen, CACM 27, 1984); the border must be empty."""
    mask = mask.copy()
    while True:
        removed = 0
        for first in (True, False):
            around = [np.roll(mask, (-dy, -dx), (0, 1)) for dy, dx in _AROUND]
            count = np.sum(around, axis=0)
            turns = np.sum(
                [~a & b for a, b in zip(around, around[1:] + around[:1], strict=True)], axis=0
            )
            north, _, east, _, south, _, west, _ = around
            keep = (
                (north & east & south) | (east & south & west)
                if first
                else (north & east & west) | (north & south & west)
            )
            gone = mask & (count >= 2) & (count <= 6) & (turns == 1) & ~keep
            mask &= ~gone
            removed += int(gone.sum())
        if not removed:
            return mask


def _near(pixel: tuple[int, int], pixels: set[tuple[int, int]]) -> list[tuple[int, int]]:
    y, x = pixel
    return [(y + dy, x + dx) for dy, dx in _AROUND if (y + dy, x + dx) in pixels]


def _turn(path: list[tuple[int, int]], pixel: tuple[int, int]) -> float:
    """How far going to `pixel` departs from the way that the path has taken."""
    (y, x), (before_y, before_x) = path[-1], path[max(0, len(path) - 8)]
    way = np.array([y - before_y, x - before_x], float)
    step = np.array([pixel[0] - y, pixel[1] - x], float)
    return -float(way @ step) / float(np.linalg.norm(step))
