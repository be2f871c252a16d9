"""Finds the ink of a picture that may belong to digits, line by line."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.modalities import TooManyPartsError
from model.modalities.digits.form import to_grey
from model.modalities.digits.ink.components import Components
from model.modalities.digits.ink.strokes import Grey, all_ink, dilated

WORKING_PIXELS = 600_000  # pixels that ink is looked for at, at most
# What one picture may show, so that reading it ends within a second.
MOST_MARKS = 400  # and pieces that they are cut into
MOST_LINES = 150
MOST_SMALL = 4_000  # marks that are looked at whether they are dirt
MOST_COVERED = 4 * WORKING_PIXELS  # pixels of boxes, which overlap where ink is no digits
# Lengths below are shares of the height of the digits in a line.
SPECK = 0.12  # smaller parts are dirt
SMALL = 0.45  # lower parts may be dashes, points or pieces of digits
Box = tuple[int, int, int, int]  # top, bottom, left, right; ends exclusive


@dataclass(frozen=True, eq=False)
class Mark:
    """Connected ink."""

    box: Box
    coverage: Grey  # of the box and a pixel around it


@dataclass(frozen=True)
class Line:
    """Marks that stand side by side."""

    height: float  # of a digit
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Marks:
    """The ink of a picture that may belong to digits, top to bottom."""

    lines: tuple[Line, ...]
    scales: tuple[float, float]  # across and down: pixels of the picture per pixel of the boxes


def find_marks(picture: Image.Image, size: tuple[int, int]) -> Marks:
    """Finds what ink may belong to digits, line by line.

    Args:
        picture: upright, in any mode.
        size: width and height that boxes are told in: the picture's own before it was reduced.

    Raises:
        TooManyPartsError: it shows more than a number, see `MOST_MARKS`.
    """
    grey, _ = to_grey(picture, WORKING_PIXELS)
    scales = size[0] / grey.shape[1], size[1] / grey.shape[0]
    coverage, inked = all_ink(grey)
    components = Components(inked)
    numbers = _lines(components)
    check_few(sum(map(len, numbers)), MOST_MARKS, "separate marks")
    _check_covered(components, numbers)
    lines = [
        Line(
            _digit_height(components, line),
            tuple(_mark(components, number, coverage) for number in line),
        )
        for line in numbers
    ]
    return Marks(tuple(lines), scales)


def check_few(count: float, most: int, what: str) -> None:
    """Refuses a picture that shows more than a number.

    Raises:
        TooManyPartsError: `count` exceeds `most`.
    """
    if count > most:
        raise TooManyPartsError(
            f"the picture shows more than {most:,} {what}: send the number alone"
        )


def line_coverage(line: Line) -> tuple[Grey, int, int]:
    """All marks of a line in one picture, and its first row and column."""
    boxes = np.array([mark.box for mark in line.marks])
    top, left = int(boxes[:, 0].min()) - 1, int(boxes[:, 2].min()) - 1
    bottom, right = int(boxes[:, 1].max()) + 1, int(boxes[:, 3].max()) + 1
    coverage = np.zeros((bottom - top, right - left), np.uint8)
    for mark in line.marks:
        lay(mark, coverage, top, left)
    return coverage, top, left


def lay(mark: Mark, coverage: Grey, top: int, left: int) -> None:
    """Adds a mark to a picture with that corner."""
    row, column = mark.box[0] - 1 - top, mark.box[2] - 1 - left
    part = coverage[row : row + mark.coverage.shape[0], column : column + mark.coverage.shape[1]]
    np.maximum(part, mark.coverage, out=part)


def _lines(components: Components) -> list[list[int]]:
    """Components by line, top to bottom, those that are dirt left out."""
    if not components.count:
        return []
    top, bottom = components.top, components.bottom
    left, right = components.left, components.right
    heights, widths = bottom - top, right - left
    # Half of all ink is in components at least as high as this.
    order = np.argsort(heights)[::-1]
    middle = np.searchsorted(components.area[order].cumsum(), components.area.sum() / 2)
    height = float(heights[order[middle]])
    tall = np.flatnonzero((heights > SMALL * height) & (heights < 3 * height))
    check_few(len(tall), MOST_MARKS, "separate marks")
    tall = tall[np.argsort(left[tall])]
    middles = (top + bottom) / 2
    line_of: dict[int, int] = {}
    lines: list[list[int]] = []
    ends: list[tuple[int, int, int, int]] = []  # of each line: top, bottom, height, right
    for number in tall.tolist():
        own = int(top[number]), int(bottom[number]), int(heights[number]), int(left[number])
        best, most = -1, 0.35
        for index, (upper, lower, highest, reach) in enumerate(ends):
            share = (min(lower, own[1]) - max(upper, own[0])) / min(highest, own[2])
            if share > most and own[3] - reach < 4 * height:
                best, most = index, share
        if best < 0:
            lines.append([])
            ends.append((0, 0, 0, 0))
            best = len(lines) - 1
        lines[best].append(number)
        line_of[number] = best
        # Of several, for the last may be half of a broken digit.
        last = lines[best][-3:]
        ends[best] = (
            int(top[last].min()),
            int(bottom[last].max()),
            int(heights[last].max()),
            int(right[last].max()),
        )
    check_few(len(lines), MOST_LINES, "lines")
    small = np.flatnonzero(
        (heights <= SMALL * height) & (np.maximum(heights, widths) > SPECK * height)
    )
    check_few(len(small), MOST_SMALL, "small marks")
    for number in small.tolist():
        # It goes with the nearest tall one, if it is beside or just above or below that.
        dx = np.maximum(left[tall] - right[number], left[number] - right[tall]).clip(0)
        dy = np.maximum(top[tall] - bottom[number], top[number] - bottom[tall]).clip(0)
        distance = dx + 2 * dy
        near = int(distance.argmin())
        if distance[near] < 1.0 * height and dy[near] < 0.4 * height:
            lines[line_of[int(tall[near])]].append(number)
    lines.sort(key=lambda line: float(np.mean(middles[line])))
    return lines


def _digit_height(components: Components, line: list[int]) -> float:
    """The median height of a line's parts, of those that are not small."""
    heights = (components.bottom - components.top)[line]
    return float(np.median(heights[heights > SMALL * heights.max()]))


def _check_covered(components: Components, lines: list[list[int]]) -> None:
    """Refuses marks and lines that cross each other all over the picture."""
    covered = 0
    for line in lines:
        top, bottom = components.top[line], components.bottom[line]
        left, right = components.left[line], components.right[line]
        covered += int((bottom.max() - top.min()) * (right.max() - left.min()))
        covered += int(((bottom - top) * (right - left)).sum())
    check_few(covered, MOST_COVERED, "pixels of ink across each other")


def _mark(components: Components, number: int, coverage: Grey) -> Mark:
    box = top, bottom, left, right = components.box(np.arange(components.count) == number)
    own = dilated(np.pad(components.part(number), 1), 1)
    inside = coverage[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1]
    beyond = [
        (int(start == 0), int(stop == length))
        for start, stop, length in (
            (top, bottom, coverage.shape[0]),
            (left, right, coverage.shape[1]),
        )
    ]
    return Mark(box, np.where(own, np.pad(inside, beyond), np.uint8(0)))
