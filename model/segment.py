"""Finds the digits of a number in a picture: a postcode, a phone number, a meter reading.

Over-segmentation and a search over its pieces (Casey and Lecolinet, IEEE PAMI 18, 1996, section 4):
ink is cut where digits may touch, every run of neighbouring pieces that could be a digit is a
candidate, the model reads all candidates in one batch, and the cheapest way through a line wins.
Ground, polarity, ruled lines and connected parts are those of `model.strokes`, the form that a
candidate takes is that of `model.preprocess`.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.components import Components
from model.config import Preprocessing
from model.preprocess import centre, to_grey
from model.strokes import Grey, all_ink, dilated, line_width

# Pixels that ink is looked for at, at most.
WORKING_PIXELS = 600_000
# Pieces and candidates of one picture, at most.
MOST_MARKS = 400

# Lengths below are shares of the height of the digits in a line.
SPECK = 0.12  # smaller parts are dirt
SMALL = 0.45  # lower parts may be dashes, points or pieces of digits
WIDEST = 1.3  # of a digit
NARROWEST_CUT = 0.4  # narrower parts are not cut
LEAST_INK = 0.25  # between two cuts, against a straight line's
BEND = 0.1
CUTS = 6  # at most, per digit's height
DEAREST_CUT = 0.4  # ink cut through
CUT_REACHES = (0.05, 0.2, 0.5)  # how far a cut may stray from straight
JUMP = 0.3  # between two parts of one digit

SURE = 0.15  # cost below which a mark is not cut

# Fitted to strips of training digits by `python -m model.segment_judge`.
JUDGE_FILE = Path(__file__).with_name("segment_judge.npz")
with np.load(JUDGE_FILE) as _arrays:
    _JUDGE = dict(_arrays)

Box = tuple[int, int, int, int]  # top, bottom, left, right; ends exclusive


class TooManyMarksError(Exception):
    """There is more in the picture than numbers of any bearable length."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Ink that belongs to one digit, whole or in part."""

    box: Box
    coverage: Grey  # of the box and a pixel around it
    cut_left: float  # ink that its left edge cuts through, in line widths; 0 where nothing was cut
    cut_right: float

    @property
    def middle(self) -> float:
        """Column."""
        return (self.box[2] + self.box[3]) / 2


@dataclass(frozen=True)
class Line:
    """Marks that stand side by side."""

    height: float  # of a digit
    marks: tuple[Piece, ...]


@dataclass(frozen=True)
class Marks:
    """The ink of a picture that may belong to digits, top to bottom."""

    lines: tuple[Line, ...]
    scales: tuple[float, float]  # across and down: pixels of the picture per pixel of the boxes


@dataclass(frozen=True)
class Shape:
    """Of a candidate, against the height of the digits in its line."""

    height: float
    width: float
    gaps: float  # between its pieces
    cut_left: float  # ink cut through
    cut_right: float
    ink: float  # area, against the square of the height


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


@dataclass(frozen=True)
class Segmentation:
    """The pieces of each line, all that may be a digit, and what leaving a piece out costs."""

    pieces: tuple[tuple[Piece, ...], ...]
    skips: tuple[tuple[float, ...], ...]
    candidates: tuple[Candidate, ...]

    def doubtful(self, costs: NDArray[np.float64]) -> set[Piece]:
        """Marks that the model does not take for one digit each, alone or with their neighbours."""
        sure = {
            piece
            for way in self.best(costs)
            for index in way
            if costs[index] < SURE
            for piece in self.candidates[index].pieces
        }
        return {piece for line in self.pieces for piece in line} - sure

    def best(self, costs: NDArray[np.float64]) -> list[list[int]]:
        """The cheapest way through each line.

        Args:
            costs: of each candidate.

        Returns: per line the indices of the candidates that are digits, left to right; lines
        without any are left out.
        """
        ways = []
        for line, skips in enumerate(self.skips):
            number = len(skips)
            ending: list[list[int]] = [[] for _ in range(number + 1)]
            for index, candidate in enumerate(self.candidates):
                if candidate.line == line:
                    ending[candidate.stop].append(index)
            total, last = [0.0], [-1]
            for stop in range(1, number + 1):
                options = [(total[stop - 1] + skips[stop - 1], -1)]
                options += [(total[self.candidates[i].start] + costs[i], i) for i in ending[stop]]
                cost, index = min(options)
                total.append(cost)
                last.append(index)
            way: list[int] = []
            at = number
            while at:
                if last[at] >= 0:
                    way.append(last[at])
                at = self.candidates[last[at]].start if last[at] >= 0 else at - 1
            if way:
                ways.append(way[::-1])
        return ways


def judge(
    candidates: Sequence[Candidate],
    probabilities: NDArray[np.floating],
    novelty: NDArray[np.floating],
) -> NDArray[np.float64]:
    """What taking each candidate for a digit costs: -ln P(it is one digit, whole), by its width.

    Args:
        candidates: that the model has read.
        probabilities: (N, classes), the model's.
        novelty: (N,), the model's.
    """
    if not candidates:
        return np.zeros(0)
    hidden = np.tanh(
        evidence(candidates, probabilities, novelty) @ _JUDGE["hidden"] + _JUDGE["bias"]
    )
    score = hidden @ _JUDGE["out"] + _JUDGE["out_bias"]
    widths = np.array([candidate.shape.width for candidate in candidates])
    costs: NDArray[np.float64] = np.logaddexp(0, -score) * np.maximum(0.5, widths)
    return costs


def evidence(
    candidates: Sequence[Candidate],
    probabilities: NDArray[np.floating],
    novelty: NDArray[np.floating],
) -> NDArray[np.float64]:
    """What `judge` weighs: how sure the model is, of which class, and the shape; (N, features)."""
    ranked = np.log(np.maximum(np.sort(probabilities, axis=1), 1e-12))
    unlike = novelty.astype(np.float64).clip(1e-4, 1 - 1e-4)
    sureness = np.stack(
        [
            ranked[:, -1].clip(-4),
            (ranked[:, -1] - ranked[:, -2]).clip(0, 8) / 4,
            ranked.std(axis=1) / 4,
            np.log(unlike / (1 - unlike)) / 4,
        ],
        axis=1,
    )
    answer = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    shapes = np.array([list(vars(candidate.shape).values()) for candidate in candidates])
    return np.concatenate([sureness, answer, shapes], axis=1)


def find_marks(picture: Image.Image, size: tuple[int, int]) -> Marks:
    """Finds what ink may belong to digits, line by line.

    Args:
        picture: upright, in any mode.
        size: width and height that boxes are told in: the picture's own before it was reduced.

    Raises:
        TooManyMarksError: there are more than `MOST_MARKS`.
    """
    grey, _ = to_grey(picture, WORKING_PIXELS)
    scales = size[0] / grey.shape[1], size[1] / grey.shape[0]
    coverage, inked = all_ink(grey)
    components = Components(inked)
    numbers = _lines(components)
    if sum(map(len, numbers)) > MOST_MARKS:
        raise TooManyMarksError(
            f"the picture shows more than {MOST_MARKS} separate marks: send the number alone"
        )
    lines = [
        Line(
            _digit_height(components, line),
            tuple(_piece(components, number, coverage) for number in line),
        )
        for line in numbers
    ]
    return Marks(tuple(lines), scales)


def segment(marks: Marks, spec: Preprocessing, cut: Container[Piece] = ()) -> Segmentation:
    """All that may be a digit.

    Args:
        marks: in the picture.
        spec: the form of the candidates.
        cut: marks that may be several digits.
    """
    candidates: list[Candidate] = []
    rows: list[tuple[Piece, ...]] = []
    skips: list[tuple[float, ...]] = []
    for index, line in enumerate(marks.lines):
        pieces = [
            piece
            for mark in line.marks
            for piece in (_cut(mark, line.height) if mark in cut else [mark])
        ]
        pieces.sort(key=lambda piece: piece.middle)
        rows.append(tuple(pieces))
        skips.append(tuple(_skip_cost(piece, line.height) for piece in pieces))
        for start in range(len(pieces)):
            for stop in range(start + 1, len(pieces) + 1):
                group = pieces[start:stop]
                if not _plausible(group, line.height):
                    break
                place = index, start, stop
                candidates.append(_candidate(group, place, line.height, marks.scales, spec))
    return Segmentation(tuple(rows), tuple(skips), tuple(candidates))


def _lines(components: Components) -> list[list[int]]:
    """Components by line, top to bottom, those that are dirt left out."""
    heights = components.bottom - components.top
    widths = components.right - components.left
    if not components.count:
        return []
    # Half of all ink is in components at least as high as this.
    order = np.argsort(heights)[::-1]
    middle = np.searchsorted(components.area[order].cumsum(), components.area.sum() / 2)
    height = float(heights[order[middle]])
    tall = np.flatnonzero((heights > SMALL * height) & (heights < 3 * height))
    tall = tall[np.argsort(components.left[tall])]
    middles = (components.top + components.bottom) / 2
    line_of: dict[int, int] = {}
    lines: list[list[int]] = []
    for number in tall:
        best, nearest = -1, 4 * height
        for index, line in enumerate(lines):
            last = line[-1]
            overlap = min(components.bottom[last], components.bottom[number]) - max(
                components.top[last], components.top[number]
            )
            gap = components.left[number] - components.right[last]
            if overlap > 0.35 * min(heights[last], heights[number]) and gap < nearest:
                best, nearest = index, gap
        if best < 0:
            lines.append([])
            best = len(lines) - 1
        lines[best].append(int(number))
        line_of[int(number)] = best
    small = np.flatnonzero(
        (heights <= SMALL * height) & (np.maximum(heights, widths) > SPECK * height)
    )
    for number in small:
        # It goes with the nearest tall one, if it is beside or just above or below that.
        dx = np.maximum(
            components.left[tall] - components.right[number],
            components.left[number] - components.right[tall],
        ).clip(0)
        dy = np.maximum(
            components.top[tall] - components.bottom[number],
            components.top[number] - components.bottom[tall],
        ).clip(0)
        distance = dx + 2 * dy
        near = int(distance.argmin())
        if distance[near] < 1.0 * height and dy[near] < 0.4 * height:
            lines[line_of[int(tall[near])]].append(int(number))
    lines.sort(key=lambda line: float(np.mean(middles[line])))
    return lines


def _digit_height(components: Components, line: list[int]) -> float:
    """The median height of a line's parts, of those that are not small."""
    heights = (components.bottom - components.top)[line]
    return float(np.median(heights[heights > SMALL * heights.max()]))


def _piece(components: Components, number: int, coverage: Grey) -> Piece:
    chosen = np.arange(components.count) == number
    top, bottom, left, right = components.box(chosen)
    own = dilated(components.mask(chosen), 1)
    wide = np.pad(np.where(own, coverage, np.uint8(0)), 1)
    return Piece((top, bottom, left, right), wide[top : bottom + 2, left : right + 2], 0.0, 0.0)


def _cut(piece: Piece, height: float) -> list[Piece]:
    """The piece in slices, where it may be several digits."""
    top, bottom, left, right = piece.box
    width = right - left
    if width < NARROWEST_CUT * height or bottom - top < SMALL * height:
        return [piece]
    ink = (piece.coverage / 255).astype(np.float32)  # (rows, columns), a pixel of margin
    ways = [_seams(ink, max(1, round(reach * height / 2))) for reach in CUT_REACHES]
    costs, paths = (np.concatenate(part) for part in zip(*ways, strict=True))
    # A cut counts where it parts ink, and other ink than the cuts before it.
    before = np.pad(ink.cumsum(axis=1), ((0, 0), (1, 0)))
    rows = np.arange(len(ink))
    mass = np.array([before[rows, path.clip(0, ink.shape[1])].sum() for path in paths])
    least = LEAST_INK * line_width(piece.coverage) * height
    parted = [0.0, float(ink.sum())]
    chosen: list[int] = []
    most = max(2, round(CUTS * width / height))
    for column in np.argsort(costs, kind="stable"):
        if costs[column] > DEAREST_CUT * height or len(chosen) == most:
            break
        if all(abs(mass[column] - other) >= least for other in parted):
            chosen.append(int(column))
            parted.append(float(mass[column]))
    if not chosen:
        return [piece]
    chosen.sort(key=lambda column: float(mass[column]))
    borders = np.sort(paths[chosen], axis=0)  # (cuts, rows)
    columns = np.arange(ink.shape[1])
    slice_of = (columns[None, :] >= borders[:, :, None]).sum(axis=0)  # (rows, columns)
    edges = [0.0, *(float(costs[c]) for c in chosen), 0.0]
    pieces = []
    for index in range(len(chosen) + 1):
        coverage = np.where(slice_of == index, piece.coverage, np.uint8(0))
        inked = coverage > 127
        if not inked.any():
            continue
        rows, cols = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
        box = (
            top - 1 + int(rows[0]),
            top + int(rows[-1]),
            left - 1 + int(cols[0]),
            left + int(cols[-1]),
        )
        wide = np.pad(coverage, 1)
        part = wide[rows[0] : rows[-1] + 3, cols[0] : cols[-1] + 3]
        pieces.append(Piece(box, part, edges[index], edges[index + 1]))
    return pieces


def _seams(ink: NDArray[np.float32], reach: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The cheapest way from top to bottom about each column, through as little ink as may be.

    Returns: what each costs (columns,), and its column in each row (columns, rows).
    """
    rows, columns = ink.shape
    band = 2 * reach + 1
    padded = np.pad(ink, ((0, 0), (reach, reach)))
    shifted = np.lib.stride_tricks.sliding_window_view(
        padded, band, axis=1
    )  # (rows, columns, band)
    bend = np.float32(BEND)
    total = shifted[0].copy()
    steps = np.zeros((rows, columns, band), np.int8)
    for row in range(1, rows):
        wide = np.pad(total, ((0, 0), (1, 1)), constant_values=np.float32(1e9))
        options = np.stack([wide[:, 1:-1], wide[:, :-2] + bend, wide[:, 2:] + bend])
        steps[row] = np.array([0, -1, 1], np.int8)[options.argmin(axis=0)]
        total = options.min(axis=0) + shifted[row]
    # Straight ones first among equals.
    total = total + np.abs(np.arange(band) - reach) * np.float32(1e-3)
    at = total.argmin(axis=1)
    costs = total.min(axis=1)
    paths = np.zeros((columns, rows), np.int64)
    own = np.arange(columns)
    for row in range(rows - 1, -1, -1):
        paths[:, row] = own + at - reach
        at = at + steps[row, own, at]
    return costs, paths


def _plausible(group: Sequence[Piece], height: float) -> bool:
    """Whether pieces may be one digit by their place and size."""
    left, right = min(p.box[2] for p in group), max(p.box[3] for p in group)
    top, bottom = min(p.box[0] for p in group), max(p.box[1] for p in group)
    if right - left > WIDEST * height or bottom - top < 0.3 * height:
        return False
    reach = group[0].box[3]
    for piece in group[1:]:
        if piece.box[2] - reach > JUMP * height:
            return False
        reach = max(reach, piece.box[3])
    return True


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
    spec: Preprocessing,
) -> Candidate:
    top, bottom = min(p.box[0] for p in group), max(p.box[1] for p in group)
    left, right = min(p.box[2] for p in group), max(p.box[3] for p in group)
    coverage = np.zeros((bottom - top + 2, right - left + 2), np.uint8)
    for piece in group:
        row, column = piece.box[0] - top, piece.box[2] - left
        part = coverage[
            row : row + piece.coverage.shape[0], column : column + piece.coverage.shape[1]
        ]
        np.maximum(part, piece.coverage, out=part)
    extent = (1, bottom - top + 1, 1, right - left + 1)
    pixels = centre(coverage, extent, (spec.height, spec.width))[None]
    box = (
        left * scales[0],
        top * scales[1],
        (right - left) * scales[0],
        (bottom - top) * scales[1],
    )
    gaps = 0.0
    reach = group[0].box[3]
    for piece in group[1:]:
        gaps += max(0, piece.box[2] - reach) / height
        reach = max(reach, piece.box[3])
    shape = Shape(
        height=(bottom - top) / height,
        width=(right - left) / height,
        gaps=gaps,
        cut_left=group[0].cut_left / height,
        cut_right=group[-1].cut_right / height,
        ink=float(coverage.sum()) / 255 / height**2,
    )
    return Candidate(*place, tuple(group), box, pixels, shape)
