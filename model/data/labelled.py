"""Labelled samples, and how they are parted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class DatasetError(Exception):
    """The data set is missing or is not what it should be; the message says what to do."""


@dataclass(frozen=True)
class LabelledImages:
    """One part of a data set.

    images: (N, H, W) uint8, strokes bright on black. labels: (N,) int64 class numbers.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> "LabelledImages":
        return LabelledImages(self.images[index], self.labels[index])

    def joined(self, other: "LabelledImages") -> "LabelledImages":
        """These images, then those of `other`."""
        return LabelledImages(
            np.concatenate([self.images, other.images]), np.concatenate([self.labels, other.labels])
        )


def split(data: LabelledImages, held_out: int, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Splits at random into (all but `held_out`, `held_out`), the same way for the same seed."""
    order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[held_out:])), data.take(np.sort(order[:held_out]))
