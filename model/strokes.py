"""Which pixels of a grey picture are the digit's ink: ground, polarity, lines, components.

NumPy alone: with SciPy or OpenCV the container would grow by 140 MB or more.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]  # (H, W)
Mask = NDArray[np.bool_]  # (H, W)

# Contrast of 255 below which a picture shows nothing.
FAINTEST = 14
# What a line of the digit is narrower than, as a share of the side of a square of the same area.
WIDEST_LINE = 0.36
AREA_COST = 1.5
# Area of a piece of the digit over that of the main one -> how far off it may be, in sizes of it.
NEAR = ((0.0, 0.039, 0.04, 0.25), (-9.0, -9.0, 0.12, 0.25))
# Thickness of a printed line, at most.
LINE_PIXELS = 3
# Contrast of an ink pixel against the strongest.
INK_LEVEL = 0.42
# Where coverage rises from 0 to 1, against that level.
RAMP = (0.5, 1.5)
# In a few pixels, grey tells more than an edge.
THUMBNAIL_LEVEL = 0.3
THUMBNAIL_RAMP = (0.2, 2.8)


@dataclass(frozen=True)
class Ink:
    """The digit in a picture."""

    coverage: Grey  # (H, W), 255 where there is ink, soft at its edges, 0 elsewhere
    box: tuple[int, int, int, int]  # top, bottom, left, right; ends exclusive
    line: float  # mean width of the digit's line, pixels


def find_ink(grey: Grey, thumbnail: bool = False) -> Ink | None:
    """The largest plausible digit of a picture, whichever way round; none in a blank one."""
    grey, noise = _denoised(_evenly_lit(_without_edges(grey, thumbnail)))
    contrast = _contrast(grey, thumbnail)
    floor = max(FAINTEST, round(4 * noise))
    contrast = _without_lines(contrast, floor)
    for _ in range(4):
        peak = _peak(contrast)
        if peak < floor:
            return None
        level = max(round(peak * (THUMBNAIL_LEVEL if thumbnail else INK_LEVEL)), floor // 2)
        mask = contrast > level
        components = Components(mask, contrast)
        chosen = components.digit()
        if chosen.any():
            break
        contrast = np.where(_dilated(mask, 2), np.uint8(0), contrast)
    else:
        return None
    box = components.box(chosen)
    own = _dilated(components.mask(chosen), 1)
    softness = THUMBNAIL_RAMP if thumbnail else RAMP
    low, high = (min(255.0, level * share) for share in softness)
    ramp = ((np.arange(256) - low) / (high - low)).clip(0, 1) * 255
    coverage = np.where(own, ramp.astype(np.uint8)[contrast], np.uint8(0))
    return Ink(coverage, box, line_width(coverage))


def line_width(coverage: Grey) -> float:
    """Mean width in pixels: twice the area over the length of the outline."""
    inked = np.pad(coverage > 127, 1)
    steps = np.count_nonzero(inked[1:] != inked[:-1])
    steps += np.count_nonzero(inked[:, 1:] != inked[:, :-1])
    # A slanted outline has more steps than length, by 4 / pi on average.
    return 2 * float(coverage.sum()) / 255 / max(1.0, steps * np.pi / 4)


def _without_edges(grey: Grey, thumbnail: bool) -> Grey:
    """What a scanner sees beside the page, painted over with the page next to it."""
    height, width = grey.shape
    if thumbnail or min(height, width) < 20:
        return grey
    page = int(
        np.sort(grey[height // 8 : -(height // 8) : 3, width // 8 : -(width // 8) : 3].ravel())[
            grey[height // 8 : -(height // 8) : 3, width // 8 : -(width // 8) : 3].size // 2
        ]
    )
    beside = np.maximum(grey, page) - np.minimum(grey, page) > 64
    grey = grey.copy()
    for _ in range(4):
        deepest = len(beside) // 6
        share = beside[: deepest + 1].mean(axis=1)
        if share[0] > 0.97 and (share < 0.5).any():
            depth = int((share < 0.5).argmax())
            depth = min(depth + 2, deepest)
            grey[:depth] = grey[depth]
            beside[:depth] = beside[depth]
        grey, beside = np.rot90(grey), np.rot90(beside)
    return np.ascontiguousarray(grey)


def _evenly_lit(grey: Grey) -> Grey:
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
    if after > 0.5 * before or fit.min() < 16:
        return grey
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    c = np.linalg.solve(weighted.T @ terms + 1e-3 * np.eye(6, dtype=np.float32), weighted.T @ level)
    light = (c[0] + c[1] * x + c[3] * x * x) + y * (c[2] + c[4] * x + c[5] * y)
    brightest = float(fit.max())
    even: Grey = (grey * (brightest / light.clip(16))).clip(0, 255).astype(np.uint8)
    return even


def _denoised(grey: Grey) -> tuple[Grey, float]:
    """Smoothed where there is noise, and the deviation of what is left of it."""
    if grey.shape[1] < 3 or grey.shape[0] < 3:
        return grey, 0.0
    steps = np.maximum(grey[:, 1:], grey[:, :-1]) - np.minimum(grey[:, 1:], grey[:, :-1])
    counts = np.bincount(steps.ravel(), minlength=256).cumsum()
    noise = float(np.searchsorted(counts, counts[-1] * 0.5)) / 0.954
    if noise < 3:
        return grey, noise
    wide = np.pad(grey, 1, mode="edge").astype(np.uint16)
    rows = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    smooth = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4
    return smooth.astype(np.uint8), noise * 0.375


def _contrast(grey: Grey, thumbnail: bool) -> Grey:
    """How far each pixel is from its ground, relative to it; ink of the likelier polarity."""
    height, width = grey.shape
    even = np.pad(grey, ((0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
    half = even[::2] + even[1::2]
    half = ((half[:, ::2] + half[:, 1::2] + 2) >> 2).astype(np.uint8)
    reach = max(2, round(WIDEST_LINE * np.sqrt(half.size)))
    padded = _padded(half, reach, thumbnail)
    light, dark = _without_dark(padded, reach), 255 - _without_dark(255 - padded, reach)
    inner = slice(reach, reach + half.shape[0]), slice(reach, reach + half.shape[1])
    light, dark = light[inner], dark[inner]
    # The ground is the smoother of what is left without dark lines and without light ones, where
    # less is taken away for it.
    cost_light = (
        _variation(light) + AREA_COST * float((light - np.minimum(half, light)).sum()) / reach
    )
    cost_dark = _variation(dark) + AREA_COST * float((np.maximum(half, dark) - dark).sum()) / reach
    if cost_light > cost_dark:
        grey, light = 255 - grey, 255 - dark
        ground = light.repeat(2, 0).repeat(2, 1)[:height, :width]
        return ground - np.minimum(grey, ground)
    ground = light.repeat(2, 0).repeat(2, 1)[:height, :width]
    difference = (ground - np.minimum(grey, ground)).astype(np.uint16)
    # Light multiplies, so what counts is the share of it that the ink swallows.
    return (difference * 255 // np.maximum(ground, 40)).clip(0, 255).astype(np.uint8)


def _padded(grey: Grey, reach: int, thumbnail: bool) -> Grey:
    """Ground beyond the edges: their usual shade where they have one, else each pixel's own."""
    ring = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    shade = int(np.sort(ring)[len(ring) // 2])
    if np.count_nonzero(np.abs(ring.astype(np.int16) - shade) < 26) > 0.8 * len(ring) or thumbnail:
        return np.pad(grey, reach, constant_values=shade)
    return np.pad(grey, reach, mode="edge")


def _without_dark(grey: Grey, reach: int) -> Grey:
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


def _without_lines(contrast: Grey, floor: int) -> Grey:
    """Printed lines erased: straight and thin, from one side of the picture to the other."""
    peak = _peak(contrast)
    if peak < floor:
        return contrast
    mask = contrast > max(round(peak * 0.2), floor // 2)
    for across in (False, True):
        turned = mask.T if across else mask
        lines = _lines(turned)
        if lines is not None:
            lines = lines.T if across else lines
            # Ink that runs along a line is darker than it.
            usual = float(np.percentile(contrast[lines], 80))
            contrast = np.where(lines & (contrast < 1.25 * usual), np.uint8(0), contrast)
    return contrast


def _lines(mask: Mask) -> Mask | None:
    """Pixels of thin lines from the left to the right side; none where there are none."""
    width = mask.shape[1]
    quarter = width // 4
    if quarter < 4 or not (mask[:, 0].any() and mask[:, -1].any()):
        return None
    # Thin: in vertical runs of at most LINE_PIXELS.
    reach = LINE_PIXELS
    padded = np.pad(mask, ((reach, reach), (0, 0)))
    core = padded.copy()
    for step in range(1, reach + 1):
        core[:-step] &= padded[step:]
    thick = core.copy()
    for step in range(1, reach + 1):
        thick[step:] |= core[:-step]
    thin = mask & ~thick[reach:-reach]
    rows, columns = np.nonzero(thin)
    if len(rows) < width // 2:
        return None
    slopes = np.arange(-24, 25, dtype=np.float32) * np.float32(0.0125)
    offsets = np.rint(rows - slopes[:, None] * (columns - width // 2)).astype(np.int64)
    low = int(offsets.min())
    span = int(offsets.max()) - low + 2
    keys = (offsets - low) + np.arange(len(slopes))[:, None] * span
    size = len(slopes) * span
    votes = np.bincount(keys.ravel(), minlength=size)
    left = np.bincount(keys[:, columns < quarter].ravel(), minlength=size)
    right = np.bincount(keys[:, columns >= width - quarter].ravel(), minlength=size)
    # A line may lie between two offsets.
    pairs = [v + np.append(v[1:], 0) for v in (votes, left, right)]
    good = (pairs[0] > 0.5 * width) & (pairs[1] > 0.4 * quarter) & (pairs[2] > 0.4 * quarter)
    if not good.any():
        return None
    near = good | np.append(good[1:], False)
    near[1:] |= good[:-1]
    near[2:] |= good[:-2]
    on_line = near[keys].any(axis=0)
    found = np.zeros_like(mask)
    found[rows[on_line], columns[on_line]] = True
    return found


def _peak(contrast: Grey) -> int:
    """The contrast that a few pixels surpass."""
    counts = np.bincount(contrast.ravel(), minlength=256)[::-1].cumsum()
    few = max(3, contrast.size // 4000)
    return 255 - int(np.searchsorted(counts, few))


def _dilated(mask: Mask, reach: int) -> Mask:
    wide = np.pad(mask, reach)
    for _ in range(reach):
        wide = wide[:-2] | wide[1:-1] | wide[2:]
        wide = wide[:, :-2] | wide[:, 1:-1] | wide[:, 2:]
    return np.pad(mask, 0) if reach == 0 else wide


class Components:
    """Connected parts of a mask, eight-connected, as runs of pixels along rows."""

    def __init__(self, mask: Mask, contrast: Grey) -> None:
        self.shape = mask.shape
        height, width = mask.shape
        self.stride = width + 1  # a gap of one ends each row's runs
        flat = np.zeros(height * self.stride + 1, np.int8)
        flat[1:].reshape(height, self.stride)[:, :width] = mask
        edges = np.diff(flat, append=np.int8(0))
        self.starts = np.flatnonzero(edges == 1)
        self.ends = np.flatnonzero(edges == -1)
        rows = self.starts // self.stride
        lefts, rights = self.starts - rows * self.stride, self.ends - rows * self.stride
        self.labels = self._labels()
        self.count = int(self.labels.max()) + 1 if len(self.labels) else 0
        number = self.count
        lengths = self.ends - self.starts
        self.area = np.bincount(self.labels, lengths, number)
        self.top = np.full(number, height)
        np.minimum.at(self.top, self.labels, rows)
        self.bottom = np.zeros(number, np.int64)
        np.maximum.at(self.bottom, self.labels, rows + 1)
        self.left = np.full(number, width)
        np.minimum.at(self.left, self.labels, lefts)
        self.right = np.zeros(number, np.int64)
        np.maximum.at(self.right, self.labels, rights)
        touching = (lefts == 0).astype(np.float64) + (rights == width)
        touching += lengths * ((rows == 0).astype(np.int64) + (rows == height - 1))
        self.contact = np.bincount(self.labels, touching, number)

    def _labels(self) -> NDArray[np.int64]:
        """A number for each run, the same for those that hang together."""
        number = len(self.starts)
        # Of the next row, the runs that reach under this one or its corners.
        first = np.searchsorted(self.ends, self.starts + self.stride)
        last = np.searchsorted(self.starts, self.ends + self.stride, side="right")
        below = (last - first).clip(0)
        upper = np.repeat(np.arange(number), below)
        lower = np.arange(len(upper)) - np.repeat(below.cumsum() - below, below) + first[upper]
        parent = np.arange(number)
        while True:
            one, other = parent[upper], parent[lower]
            if np.array_equal(one, other):
                break
            np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
            while True:
                grand = parent[parent]
                if np.array_equal(grand, parent):
                    break
                parent = grand
        roots = parent == np.arange(number)
        numbered: NDArray[np.int64] = (roots.cumsum() - 1)[parent]
        return numbered

    def digit(self) -> Mask:
        """Which components make up the digit; none where all are edges and lines."""
        if not self.count:
            return np.zeros(0, np.bool_)
        height, width = self.bottom - self.top, self.right - self.left
        size = np.maximum(height, width)
        short = np.minimum(height, width)
        thin = (size > 8 * short) & (self.contact > 0)
        hugging = (1 - 1.2 * self.contact / (height + width)).clip(0.02, 1)
        score = np.where(
            thin & (self.contact > 0.2 * size), 0, (height + width) * np.sqrt(self.area) * hugging
        )
        main = int(score.argmax())
        if score[main] == 0:
            return np.zeros(self.count, np.bool_)
        chosen: Mask = np.arange(self.count) == main
        # Pieces of broken strokes: near, and not too small.
        share = np.where(score > 0, self.area / self.area[main], 0)
        for _ in range(4):
            top, bottom, left, right = self.box(chosen)
            # The larger a piece, the further away it may be.
            reach = max(bottom - top, right - left) * np.interp(share, *NEAR)
            near = (self.top < bottom + reach) & (self.bottom > top - reach)
            near &= (self.left < right + reach) & (self.right > left - reach)
            if np.array_equal(chosen, chosen | near):
                break
            chosen |= near
        return chosen

    def box(self, chosen: Mask) -> tuple[int, int, int, int]:
        return (
            int(self.top[chosen].min()),
            int(self.bottom[chosen].max()),
            int(self.left[chosen].min()),
            int(self.right[chosen].max()),
        )

    def mask(self, chosen: Mask) -> Mask:
        """The chosen components' pixels."""
        runs = chosen[self.labels]
        steps = np.zeros(self.shape[0] * self.stride + 1, np.int8)
        steps[self.starts[runs]] = 1
        steps[self.ends[runs]] -= 1
        filled = steps.cumsum(dtype=np.int8)[:-1].reshape(self.shape[0], self.stride)
        return filled[:, : self.shape[1]].astype(np.bool_)
