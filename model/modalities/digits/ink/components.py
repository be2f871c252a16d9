"""Connected components of a mask, without SciPy or OpenCV: 140 MB more in the container."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # (H, W)
Indices = NDArray[np.int64]


class Components:
    """Connected parts of a mask, eight-connected, as runs of pixels along rows."""

    def __init__(self, mask: Mask) -> None:
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
        # Two pixels wide, for what lies along an edge need not touch it everywhere.
        touching = (lefts < 2).astype(np.float64) + (rights > width - 2)
        touching += lengths * ((rows < 2).astype(np.float64) + (rows > height - 3)) / 2
        self.contact = np.bincount(self.labels, touching, number)

    def _labels(self) -> Indices:
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
        numbered: Indices = (roots.cumsum() - 1)[parent]
        return numbered

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
        return _filled(self.starts[runs], self.ends[runs], self.shape)

    def part(self, number: int) -> Mask:
        """One component's pixels, in its box."""
        top, left = self.top[number], self.left[number]
        shape = int(self.bottom[number] - top), int(self.right[number] - left)
        runs = self.labels == number
        starts, ends = self.starts[runs], self.ends[runs]
        # A row there is shorter than here, and its first pixel another.
        moved = (starts // self.stride - top) * (self.stride - shape[1] - 1)
        moved += top * self.stride + left
        return _filled(starts - moved, ends - moved, shape)


def _filled(starts: Indices, ends: Indices, shape: tuple[int, int]) -> Mask:
    """A mask of runs, by where they start and end if a gap of one follows each row."""
    height, width = shape
    steps = np.zeros(height * (width + 1) + 1, np.int8)
    steps[starts] = 1
    steps[ends] -= 1
    filled = steps.cumsum(dtype=np.int8)[:-1].reshape(height, width + 1)
    return filled[:, :width].astype(np.bool_)
