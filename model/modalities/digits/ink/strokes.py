"""Which pixels of a grey picture are the digit's ink."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.modalities.digits.ink.components import Components
from model.modalities.digits.ink.ground import contrasts, denoised, evenly_lit, without_edges

Grey = NDArray[np.uint8]  # (H, W)
Mask = NDArray[np.bool_]  # (H, W)
Indices = NDArray[np.int64]

GREYS = np.arange(256)
FAINTEST = 14  # contrast of 255 below which a picture shows nothing
INK_LEVEL = 0.42  # contrast of an ink pixel against the strongest
RAMP = (0.5, 1.5)  # where coverage rises from 0 to 1, against that level
# In a few pixels, grey tells more than an edge.
THUMBNAIL_LEVEL = 0.3
THUMBNAIL_RAMP = (0.2, 2.8)
# Rows per column that a printed line may rise.
SLOPES = np.arange(-12, 13, dtype=np.float32) * np.float32(0.025)
LINE_PIXELS = 3  # thickness of a printed line, at most
# Area of a piece of the digit over that of the main one -> how far off it may be, in sizes of it.
NEAR = ((0.0, 0.039, 0.04, 0.25), (-9.0, -9.0, 0.12, 0.25))
HUGGING = 0.5  # how free of the picture's edges a piece of the digit is, at least
ALONG_EDGES = 0.1  # what is free of them no more than this may be ground, and the ground ink
FAINT_LEVEL = 0.2  # beside specks alone, ink is looked for at this contrast
SPECK = 0.35  # size, as a share of the picture's


@dataclass(frozen=True)
class Ink:
    """The digit in a picture."""

    coverage: Grey  # (H, W), 255 where there is ink, soft at its edges, 0 elsewhere
    box: tuple[int, int, int, int]  # top, bottom, left, right; ends exclusive
    line: float  # mean width of the digit's line, pixels

    @property
    def size(self) -> int:
        """The box' longer side."""
        top, bottom, left, right = self.box
        return max(bottom - top, right - left)


@dataclass(frozen=True)
class _Found:
    contrast: Grey
    level: int
    components: Components
    chosen: Mask  # (components,)
    free: float  # how little of its outline runs along the picture's edges, in [0, 1]

    @property
    def size(self) -> int:
        top, bottom, left, right = self.components.box(self.chosen)
        return max(bottom - top, right - left)

    @property
    def wide(self) -> bool:
        """Whether it is more than a straight line along an axis."""
        top, bottom, left, right = self.components.box(self.chosen)
        return min(bottom - top, right - left) > self.size / 5


def find_ink(grey: Grey, thumbnail: bool = False) -> Ink | None:
    """The largest plausible digit of a picture, whichever way round; none in a blank one."""
    grey, noise = denoised(evenly_lit(without_edges(grey, thumbnail)))
    floor = max(FAINTEST, round(4 * noise))
    best: _Found | None = None
    for contrast in contrasts(grey, thumbnail):
        found = _find(_without_lines(contrast, floor), floor, thumbnail)
        if found is not None and (best is None or found.free > best.free):
            best = found
        if thumbnail or (best is not None and best.free > ALONG_EDGES):
            break
    if best is None:
        return None
    own = dilated(best.components.mask(best.chosen), 1)
    softness = THUMBNAIL_RAMP if thumbnail else RAMP
    low, high = (min(255.0, best.level * share) for share in softness)
    ramp = (((GREYS - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)
    coverage = ramp[best.contrast] * own
    return Ink(coverage, best.components.box(best.chosen), line_width(coverage))


def all_ink(grey: Grey) -> tuple[Grey, Mask]:
    """All ink of a picture, ruled lines erased.

    Returns: coverage, linear in the contrast, and where it is ink for certain.
    """
    grey, noise = denoised(evenly_lit(without_edges(grey, False)))
    floor = max(FAINTEST, round(4 * noise))
    contrast = _without_lines(next(iter(contrasts(grey, False))), floor)
    peak = _peak(contrast)
    if peak < floor:
        return np.zeros_like(grey), np.zeros(grey.shape, np.bool_)
    # Not hardened, as MNIST's strokes are not; but noise is no ink.
    share = (contrast.astype(np.float32) - floor / 2) / max(1.0, peak - floor / 2)
    coverage = (share.clip(0, 1) * 255).astype(np.uint8)
    return coverage, contrast > max(round(peak * INK_LEVEL), floor // 2)


def line_width(coverage: Grey) -> float:
    """Mean width in pixels: twice the area over the length of the outline."""
    inked = np.zeros((coverage.shape[0] + 2, coverage.shape[1] + 2), np.bool_)
    inked[1:-1, 1:-1] = coverage > 127
    steps = np.count_nonzero(inked[1:] != inked[:-1])
    steps += np.count_nonzero(inked[:, 1:] != inked[:, :-1])
    # A slanted outline has more steps than length, by 4 / pi on average.
    return 2 * float(coverage.sum()) / 255 / max(1.0, steps * np.pi / 4)


def _find(contrast: Grey, floor: int, thumbnail: bool) -> _Found | None:
    """The digit in a map of contrast; none where nothing but edges and lines is in it."""
    peak = _peak(contrast)
    for _ in range(4):
        if peak < floor:
            return None
        level = max(round(peak * (THUMBNAIL_LEVEL if thumbnail else INK_LEVEL)), floor // 2)
        mask = contrast > level
        found = _choose(contrast, level, Components(mask))
        if found is not None:
            break
        contrast = np.where(dilated(mask, 2), np.uint8(0), contrast)
        peak = _peak(contrast)
    if found is None or thumbnail or found.size > SPECK * min(contrast.shape):
        return found
    level = max(round(peak * FAINT_LEVEL), floor)
    fainter = _choose(contrast, level, Components(contrast > level))
    if fainter is not None and fainter.free == 1 and fainter.size > 3 * found.size and fainter.wide:
        return fainter
    return found


def _choose(contrast: Grey, level: int, parts: Components) -> _Found | None:
    """The largest plausible component with its broken strokes."""
    if not parts.count:
        return None
    height, width = parts.bottom - parts.top, parts.right - parts.left
    size, short = np.maximum(height, width), np.minimum(height, width)
    free = (1 - 1.2 * parts.contact / (height + width)).clip(0.002, 1)
    edge = (size > 8 * short) & (parts.contact > 0.2 * size)
    score = np.where(edge, 0, (height + width) * np.sqrt(parts.area) * free)
    # What is left of printed lines and of the borders of shadows.
    score[(short <= 3) & (size > 12 * short)] *= 0.1
    main = int(score.argmax())
    if parts.count > 1 and _is_frame(parts, main):
        score[main] = 0
        main = int(score.argmax())
    if score[main] == 0:
        return None
    chosen: Mask = np.arange(parts.count) == main
    piece = (score > 0) & (free >= min(HUGGING, free[main]))
    share = np.where(piece, parts.area / parts.area[main], 0)
    for _ in range(4):
        top, bottom, left, right = parts.box(chosen)
        # The larger a piece, the further away it may be.
        reach = max(bottom - top, right - left) * np.interp(share, *NEAR)
        near = (parts.top < bottom + reach) & (parts.bottom > top - reach)
        near &= (parts.left < right + reach) & (parts.right > left - reach)
        if np.array_equal(chosen, chosen | near):
            break
        chosen |= near
    return _Found(contrast, level, parts, chosen, float(free[main]))


def _is_frame(parts: Components, part: int) -> bool:
    """Whether a component is the outline of a box, as drawing pads and forms have."""
    chosen: Mask = np.arange(parts.count) == part
    top, bottom, left, right = parts.box(chosen)
    if parts.area[part] > 0.4 * (bottom - top) * (right - left):
        return False
    own = parts.mask(chosen)[top:bottom, left:right]
    sides = own[:3].any(0), own[-3:].any(0), own[:, :3].any(1), own[:, -3:].any(1)
    return all(side.mean() > 0.85 for side in sides)


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
    # Every third column votes for the lines that its pixels may be on.
    voting = columns % 3 == 0
    if not voting.any():
        return None
    votes, low, span = _votes(rows[voting], columns[voting] - width // 2, SLOPES)
    candidates = np.flatnonzero((votes > 0.5 * width / 3).any(axis=1))
    if not len(candidates):
        return None
    # Lines of the few slopes that are left, which must reach into both outer quarters.
    slopes = SLOPES[candidates]
    columns -= width // 2
    votes, low, span = _votes(rows, columns, slopes)
    outer = [
        _votes(rows[part], columns[part], slopes, low, span)[0]
        for part in (columns < quarter - width // 2, columns >= width - quarter - width // 2)
    ]
    good = (votes > 0.5 * width) & (outer[0] > 0.4 * quarter) & (outer[1] > 0.4 * quarter)
    if not good.any():
        return None
    near = good.ravel()
    near = near | np.append(near[1:], False)
    near[1:] |= good.ravel()[:-1]
    near[2:] |= good.ravel()[:-2]
    on_line = np.zeros(len(rows), np.bool_)
    for start, slope in zip(range(0, len(near), span), slopes, strict=True):
        on_line |= near[_offsets(rows, columns, slope) + (start - low)]
    found = np.zeros_like(mask)
    found[rows[on_line], columns[on_line] + width // 2] = True
    return found


def _votes(
    rows: Indices,
    columns: Indices,
    slopes: NDArray[np.float32],
    low: int | None = None,
    span: int | None = None,
) -> tuple[Indices, int, int]:
    """Pixels on each line of these slopes (slopes, span), two pixels wide, by its row at column 0.

    Also the first row and the span.
    """
    counted = []  # slope by slope, for a place of each pixel for each slope takes much memory
    for slope in slopes:
        offsets = _offsets(rows, columns, slope)
        first = int(offsets.min()) if len(offsets) else low or 0
        counted.append((first, np.bincount(offsets - first)))
    if low is None or span is None:
        low = min(first for first, _ in counted)
        span = max(first + len(counts) for first, counts in counted) - low + 2
    votes = np.zeros(len(slopes) * span, np.int64)
    for index, (first, counts) in enumerate(counted):
        start = index * span + first - low
        votes[start : start + len(counts)] = counts
    votes[:-1] += votes[1:]  # a line may lie between two rows
    return votes.reshape(len(slopes), span), low, span


def _offsets(rows: Indices, columns: Indices, slope: np.float32) -> Indices:
    """The row at column 0 of the line through each pixel."""
    offsets: Indices = np.rint(rows - slope * columns).astype(np.int64)
    return offsets


def _peak(contrast: Grey) -> int:
    """The contrast that a few pixels surpass."""
    height, width = (n - n % 2 for n in contrast.shape)
    if height and width:  # the largest of each four
        contrast = np.maximum(contrast[:height:2], contrast[1:height:2])
        contrast = np.maximum(contrast[:, :width:2], contrast[:, 1:width:2])
    counts = np.bincount(contrast.ravel(), minlength=256)[::-1].cumsum()
    return 255 - int(np.searchsorted(counts, max(2, contrast.size // 2000)))


def dilated(mask: Mask, reach: int) -> Mask:
    """With all pixels within so many rows and columns of one that is set."""
    height, width = mask.shape
    wide = np.zeros((height + 2 * reach, width + 2 * reach), np.bool_)
    wide[reach : reach + height, reach : reach + width] = mask
    for _ in range(reach):
        wide = wide[:-2] | wide[1:-1] | wide[2:]
        wide = wide[:, :-2] | wide[:, 1:-1] | wide[:, 2:]
    return wide
