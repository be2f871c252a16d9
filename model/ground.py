"""What a picture's ground is, so that what is left is ink: page edges, light, noise, polarity."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]  # (H, W)

# What a line of the digit is narrower than, as a share of the side of a square of the same area.
WIDEST_LINE = 0.36
# Of the area that is called ink, against the length of the edges that are left in the ground.
AREA_COST = 1.5
# Deviation of the noise that is smoothed.
NOISE = 3


def without_edges(grey: Grey, thumbnail: bool) -> Grey:
    """What a scanner sees beside the page, painted over with the page next to it."""
    height, width = grey.shape
    if thumbnail or min(height, width) < 20:
        return grey
    inner = grey[height // 8 : -(height // 8) : 3, width // 8 : -(width // 8) : 3].ravel()
    page = np.sort(inner)[len(inner) // 2]
    if not any(
        np.mean(np.abs(side.astype(np.int16) - page) > 64) > 0.9
        for side in (grey[0], grey[-1], grey[:, 0], grey[:, -1])
    ):
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
                inside = np.maximum(np.arange(length), np.minimum(depth + 2, length - 1)[:, None])
                grey = np.take_along_axis(grey, inside, axis=1)
        grey = np.rot90(grey)
    return np.ascontiguousarray(grey)


def evenly_lit(grey: Grey) -> Grey:
    """Divided by a smooth fall of light over the picture, where there is one."""
    height, width = grey.shape
    rows, columns = min(height, 16), min(width, 16)
    if rows < 8 or columns < 8:
        return grey
    tall, wide = height // rows, width // columns
    cells = grey[: rows * tall, : columns * wide].reshape(rows, tall, columns, wide)
    level = cells.astype(np.float32).mean(axis=(1, 3)).ravel()
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None] + np.zeros(columns, np.float32)
    x = np.linspace(-1, 1, columns, dtype=np.float32) + np.zeros((rows, 1), np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    before = float(np.median(np.abs(level - np.median(level))))
    if before < 3:
        return grey
    weight = np.ones_like(level)
    for _ in range(4):
        weighted = terms * weight[:, None]
        fit = terms @ np.linalg.solve(
            weighted.T @ terms + 1e-3 * np.eye(6, dtype=np.float32), weighted.T @ level
        )
        off = np.abs(level - fit)
        after = float(np.median(off))
        weight = 1 / (1 + (off / max(1.0, 2 * after)) ** 2) ** 2
    if after > 0.25 * before or fit.min() < 16:
        return grey
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    c = np.linalg.solve(weighted.T @ terms + 1e-3 * np.eye(6, dtype=np.float32), weighted.T @ level)
    light = (c[0] + c[1] * x + c[3] * x * x) + y * (c[2] + c[4] * x + c[5] * y)
    brightest = float(fit.max())
    even: Grey = (grey * (brightest / light.clip(16))).clip(0, 255).astype(np.uint8)
    return even


def denoised(grey: Grey) -> tuple[Grey, float]:
    """Smoothed where there is noise, and the deviation of what is left of it."""
    if grey.shape[1] < 3 or grey.shape[0] < 3:
        return grey, 0.0
    steps = np.maximum(grey[:, 1:], grey[:, :-1]) - np.minimum(grey[:, 1:], grey[:, :-1])
    counts = np.bincount(steps.ravel(), minlength=256).cumsum()
    noise = float(np.searchsorted(counts, counts[-1] * 0.5)) / 0.954
    if noise < NOISE:
        return grey, noise
    wide = np.pad(grey, 1, mode="edge").astype(np.uint16)
    rows = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    smooth = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4
    return smooth.astype(np.uint8), noise * 0.375


def contrasts(grey: Grey, thumbnail: bool) -> Iterator[Grey]:
    """How far each pixel is from its ground: of dark and of light ink, the likelier first.

    The ground is what is left when lines narrower than `WIDEST_LINE` are taken away. That of the
    right polarity is the smoother one, and less was taken away for it.
    """
    height, width = grey.shape
    even = np.pad(grey, ((0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
    half = even[::2] + even[1::2]
    half = ((half[:, ::2] + half[:, 1::2] + 2) >> 2).astype(np.uint8)
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
        ground = (light if ink_is_dark else dark).repeat(2, 0).repeat(2, 1)[:height, :width]
        if not ink_is_dark:
            yield np.maximum(grey, ground) - ground
            continue
        difference = (ground - np.minimum(grey, ground)).astype(np.uint16)
        # Light multiplies, so what counts is the share of it that the ink swallows.
        yield (difference * 255 // np.maximum(ground, 40)).clip(0, 255).astype(np.uint8)


def _padded(grey: Grey, reach: int, thumbnail: bool) -> Grey:
    """Ground beyond the edges: their usual shade where they have one, else each pixel's own."""
    ring = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    shade = int(np.sort(ring)[len(ring) // 2])
    if np.count_nonzero(np.abs(ring.astype(np.int16) - shade) < 26) > 0.8 * len(ring) or thumbnail:
        return np.pad(grey, reach, constant_values=shade)
    return np.pad(grey, reach, mode="edge")


def _closed(grey: Grey, reach: int) -> Grey:
    """Closing with a square: dark details narrower than `reach` are filled from around them."""
    return 255 - _highest(255 - _highest(grey, reach), reach)


def _highest(grey: Grey, reach: int) -> Grey:
    """Largest value in a square window of odd side about each pixel."""
    half = reach // 2
    side = 2 * half + 1
    for axis in (0, 1):
        length = grey.shape[axis]
        widths = ((half, half), (0, 0)) if axis == 0 else ((0, 0), (half, half))
        best = np.pad(grey, widths)
        covered = 1
        while covered < side:
            step = min(covered, side - covered)
            if axis == 0:
                best = np.maximum(best[:-step], best[step:])
            else:
                best = np.maximum(best[:, :-step], best[:, step:])
            covered += step
        assert best.shape[axis] == length
        grey = best
    return grey


def _variation(grey: Grey) -> int:
    signed = grey.astype(np.int16)
    return int(np.abs(np.diff(signed, axis=0)).sum() + np.abs(np.diff(signed, axis=1)).sum())
