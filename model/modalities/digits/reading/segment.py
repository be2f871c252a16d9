"""Parts the lines of a picture into pieces, and puts these together to all that may be digits.

Over-segmentation and a search over its pieces (Casey and Lecolinet, IEEE PAMI 18, 1996, section 4):
ink is cut where digits may touch, every run of neighbouring pieces that could be a digit is a
candidate, the model reads all candidates in one batch, and the cheapest way through a line wins.
"""

from bisect import bisect, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.card import InputSpec
from model.modalities.digits.form import centre, size_of
from model.modalities.digits.ink.strokes import line_width
from model.modalities.digits.reading.extents import DIGIT, ExtentNetwork
from model.modalities.digits.reading.marks import (
    MOST_COVERED,
    MOST_MARKS,
    SMALL,
    Line,
    Mark,
    Marks,
    check_few,
    lay,
    line_coverage,
)

# What one picture may take, so that reading it ends within a second.
MOST_SEEN = 300_000  # pixels of all lines that the network sees
MOST_CANDIDATES = 600  # which the model reads
MOST_DRAWN = 8_000_000  # pixels of all candidates

# Lengths below are shares of the height of the digits in a line.
WIDEST = 1.3  # of a digit
LEAST_INK = 0.25  # between two cuts, against a straight line's
WIDE_SPREAD = 0.09  # of the middles that pixels vote for, from which on these are parted
CUT = 0.01  # added to the ink at a cut
JUMP = 0.3  # between two parts of one digit


@dataclass(frozen=True, eq=False)
class Impression:
    """What the pixels of some ink tell, on the mean, of the digit that they belong to."""

    ink: float  # area
    left: float  # column where it begins
    right: float
    variance: float  # of its middle from pixel to pixel
    classes: NDArray[np.float64]  # ln P of each, (10,)

    @property
    def middle(self) -> float:
        """Column."""
        return (self.left + self.right) / 2

    @staticmethod
    def of_pixels(ends: NDArray[np.float32], classes: NDArray[np.float32]) -> "Impression":
        """Of N pixels: `ends` (2, N), `classes` (10, N)."""
        if not ends.size:
            return Impression(0.0, 0.0, 0.0, 0.0, np.zeros(len(classes)))
        left, right = ends.mean(axis=1, dtype=np.float64).tolist()
        variance = float(ends.mean(axis=0).var(dtype=np.float64))
        return Impression(ends.shape[1], left, right, variance, classes.mean(axis=1, dtype=float))

    @staticmethod
    def joined(parts: "Sequence[Impression]") -> "Impression":
        """Of several pieces together."""
        ink = np.array([part.ink for part in parts])
        shares = ink / max(1.0, ink.sum())
        left = float(shares @ [part.left for part in parts])
        right = float(shares @ [part.right for part in parts])
        off = [part.variance + (part.middle - (left + right) / 2) ** 2 for part in parts]
        classes = shares @ np.stack([part.classes for part in parts])
        return Impression(float(ink.sum()), left, right, float(shares @ off), classes)


@dataclass(frozen=True, eq=False)
class Piece(Mark):
    """Ink that belongs to one digit, whole or in part."""

    impression: Impression
    cut_left: float = 0.0  # how much ink may be on either side of its left edge; 0: none was cut
    cut_right: float = 0.0


@dataclass(frozen=True)
class Shape:
    """Of a candidate, against the height of the digits in its line."""

    height: float
    width: float
    gaps: float  # between its pieces
    cut_left: float  # ink cut through
    cut_right: float
    ink: float  # area, against the square of the height
    spread: float  # of the middles of the digit that its pixels vote for
    left: float  # how far those votes' first column is within it
    right: float


@dataclass(frozen=True)
class Candidate:
    """What may be one digit: pieces `start` to `stop` (exclusive) of a line."""

    line: int
    start: int
    stop: int
    pieces: tuple[Piece, ...]
    box: tuple[float, float, float, float]  # x, y, width, height in the picture
    pixels: NDArray[np.uint8]  # (1, H, W), the model's input
    shape: Shape
    impression: Impression


@dataclass(frozen=True)
class Segmentation:
    """The pieces of each line, all that may be a digit, and what leaving a piece out costs."""

    pieces: tuple[tuple[Piece, ...], ...]
    skips: tuple[tuple[float, ...], ...]
    candidates: tuple[Candidate, ...]


def segment(marks: Marks, spec: InputSpec, network: ExtentNetwork) -> Segmentation:
    """All that may be a digit among marks, in the form of `spec`.

    Raises:
        TooManyPartsError: there is more than in a number, see `MOST_CANDIDATES`.
    """
    seen_pixels = sum(_size(line.marks) * (DIGIT / line.height) ** 2 for line in marks.lines)
    check_few(seen_pixels, MOST_SEEN, "pixels of small ink")
    drawn = 0
    candidates: list[Candidate] = []
    rows: list[tuple[Piece, ...]] = []
    skips: list[tuple[float, ...]] = []
    for index, line in enumerate(marks.lines):
        seen = _seen(line, network)
        pieces = [piece for mark in line.marks for piece in _parted(mark, seen, line.height)]
        check_few(sum(map(len, rows)) + len(pieces), MOST_MARKS, "pieces of ink")
        pieces.sort(key=lambda piece: piece.impression.middle)
        rows.append(tuple(pieces))
        skips.append(tuple(_skip_cost(piece, line.height) for piece in pieces))
        for start in range(len(pieces)):
            for stop in range(start + 1, len(pieces) + 1):
                group = pieces[start:stop]
                if not _plausible(group, line.height):
                    break
                place = index, start, stop
                drawn += _size(group)
                check_few(len(candidates) + 1, MOST_CANDIDATES, "possible digits")
                check_few(drawn, MOST_DRAWN, "pixels of possible digits")
                candidates.append(_candidate(group, place, line.height, marks.scales, spec))
    return Segmentation(tuple(rows), tuple(skips), tuple(candidates))


@dataclass(frozen=True, eq=False)
class _Seen:
    """What each pixel of a line tells of the digit that it belongs to."""

    top: int  # of the maps, in the line's picture
    left: int
    ends: NDArray[np.float32]  # (2, H, W): first and last column
    classes: NDArray[np.float32]  # (10, H, W): ln P

    def of(self, mark: Mark) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The parts that lie under a mark's coverage."""
        row, column = mark.box[0] - 1 - self.top, mark.box[2] - 1 - self.left
        height, width = mark.coverage.shape
        part = slice(None), slice(row, row + height), slice(column, column + width)
        return self.ends[part], self.classes[part]


def _seen(line: Line, network: ExtentNetwork) -> _Seen:
    coverage, top, left = line_coverage(line)
    ends, classes = network.look(coverage, line.height)
    return _Seen(top, left, ends + np.float32(left), classes)


def _parted(mark: Mark, seen: _Seen, height: float) -> list[Piece]:
    """The mark in pieces, where its pixels seem to belong to several digits."""
    inked = mark.coverage > 127
    row, column = mark.box[0] - 1, mark.box[2] - 1  # of the coverage's corner
    ends, classes = seen.of(mark)
    middles = (ends[0] + ends[1]) / 2
    bins = ((middles - mark.box[2]) * (DIGIT / height)).round().astype(np.int64) + DIGIT // 2
    bins = bins.clip(1, round((mark.box[3] - mark.box[2]) * DIGIT / height) + DIGIT)
    ink = np.bincount(bins[inked], minlength=int(bins.max()) + 2) / height**2
    smooth = np.convolve(ink, (0.25, 0.5, 0.25), "same")
    cuts = _valleys(smooth, LEAST_INK * line_width(mark.coverage) / height)
    check_few(len(cuts) + 1, MOST_MARKS, "pieces of ink")
    cuts = sorted({*cuts, *_middles(ink, cuts, WIDE_SPREAD * DIGIT)})
    slice_of = np.searchsorted(cuts, bins, side="right")
    edges = [0.0, *(CUT + float(smooth[cut - 1 : cut + 1].min()) for cut in cuts), 0.0]
    # The pixels of each piece, row by row, found without a look at the whole mark for each.
    owners = slice_of[inked]
    order = np.argsort(owners, kind="stable")
    places = np.argwhere(inked)[order]
    starts = np.searchsorted(owners[order], np.arange(len(cuts) + 2)).tolist()
    wide, wide_slices = np.pad(mark.coverage, 1), np.pad(slice_of, 1)
    pieces = []
    covered = 0
    for index, (start, stop) in enumerate(pairwise(starts)):
        if start == stop:
            continue
        rows, columns = places[start:stop].T
        top, bottom = int(rows.min()), int(rows.max()) + 1
        left, right = int(columns.min()), int(columns.max()) + 1
        covered += (bottom - top) * (right - left)
        check_few(covered, MOST_COVERED, "pixels of ink across each other")
        box = row + top, row + bottom, column + left, column + right
        around = slice(top, bottom + 2), slice(left, right + 2)
        part = np.where(wide_slices[around] == index, wide[around], np.uint8(0))
        impression = Impression.of_pixels(ends[:, rows, columns], classes[:, rows, columns])
        pieces.append(Piece(box, part, impression, edges[index], edges[index + 1]))
    return pieces


def _valleys(ink: NDArray[np.float64], least: float) -> list[int]:
    """Where to part a histogram: at its deepest places first, with `least` between two cuts."""
    before = np.concatenate([[0.0], ink.cumsum()])  # before[i]: what is below i
    parted = [0.0, float(before[-1])]
    cuts: list[int] = []
    inner = np.arange(1, len(ink) - 1)
    low = inner[(ink[1:-1] <= ink[:-2]) & (ink[1:-1] <= ink[2:])]
    for at in low[np.argsort(ink[low], kind="stable")]:
        mass = float(before[at] + ink[at] / 2)
        place = bisect(parted, mass)
        if all(abs(mass - other) >= least for other in parted[max(0, place - 1) : place + 1]):
            cuts.append(int(at))
            insort(parted, mass)
    return sorted(cuts)


def _middles(ink: NDArray[np.float64], cuts: Sequence[int], spread: float) -> list[int]:
    """Where else to part a histogram: the parts of a wider spread in two (Otsu, 1979)."""
    at = np.arange(len(ink))
    found = []
    for start, stop in pairwise((0, *cuts, len(ink))):
        weight = np.where((at >= start) & (at < stop), ink, 0)
        total = float(weight.sum())
        if not total or np.average((at - np.average(at, weights=weight)) ** 2, weights=weight) < (
            spread**2
        ):
            continue
        below, moment = weight.cumsum() / total, (weight * at).cumsum() / total
        between = (moment[-1] * below - moment) ** 2 / (below * (1 - below)).clip(1e-9)
        found.append(int(between.argmax()) + 1)
    return found


def _size(group: Sequence[Mark]) -> int:
    """Pixels of a picture of marks."""
    left, right = min(m.box[2] for m in group), max(m.box[3] for m in group)
    top, bottom = min(m.box[0] for m in group), max(m.box[1] for m in group)
    return (bottom - top + 2) * (right - left + 2)


def _plausible(group: Sequence[Piece], height: float) -> bool:
    """Whether pieces may be one digit by their place and size."""
    left, right = min(p.box[2] for p in group), max(p.box[3] for p in group)
    top, bottom = min(p.box[0] for p in group), max(p.box[1] for p in group)
    if right - left > WIDEST * height or bottom - top < 0.3 * height:
        return False
    return max(_gaps(group), default=0) <= JUMP * height


def _gaps(group: Sequence[Piece]) -> list[int]:
    """Columns between each piece and all before it, negative where it begins among these."""
    reached = accumulate((piece.box[3] for piece in group), max)
    return [piece.box[2] - reach for piece, reach in zip(group[1:], reached, strict=False)]


def _skip_cost(piece: Piece, height: float) -> float:
    """What it costs to leave a piece out: little for a dash or a point, all for a digit."""
    top, bottom, _, _ = piece.box
    share = (bottom - top) / height
    if piece.cut_left or piece.cut_right or share > SMALL:
        return 30.0
    return 0.5 + 4 * share


def _candidate(
    group: Sequence[Piece],
    place: tuple[int, int, int],
    height: float,
    scales: tuple[float, float],
    spec: InputSpec,
) -> Candidate:
    top, bottom = min(p.box[0] for p in group), max(p.box[1] for p in group)
    left, right = min(p.box[2] for p in group), max(p.box[3] for p in group)
    coverage = np.zeros((bottom - top + 2, right - left + 2), np.uint8)
    for piece in group:
        lay(piece, coverage, top - 1, left - 1)
    extent = (1, bottom - top + 1, 1, right - left + 1)
    pixels = centre(coverage, extent, size_of(spec))[None]
    across, down = scales
    box = left * across, top * down, (right - left) * across, (bottom - top) * down
    impression = Impression.joined([piece.impression for piece in group])
    shape = Shape(
        height=(bottom - top) / height,
        width=(right - left) / height,
        gaps=sum(max(0, gap) / height for gap in _gaps(group)),
        cut_left=group[0].cut_left,
        cut_right=group[-1].cut_right,
        ink=float(coverage.sum()) / 255 / height**2,
        spread=impression.variance**0.5 / height,
        left=(impression.left - left) / height,
        right=(impression.right - right) / height,
    )
    return Candidate(*place, tuple(group), box, pixels, shape, impression)
