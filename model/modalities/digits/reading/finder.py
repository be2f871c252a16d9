"""Finds the digits of a number: first all candidates, then the best way through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.card import InputSpec
from model.modalities import ChosenPart, Limits, pillow
from model.modalities.digits.reading.extents import ExtentNetwork
from model.modalities.digits.reading.judge import Judge, best_ways
from model.modalities.digits.reading.learned import EXTENTS_FILE, JUDGE_FILE
from model.modalities.digits.reading.marks import find_marks
from model.modalities.digits.reading.segment import Segmentation, segment

DETAIL = 1600  # pixels of the longer side that a reduced JPEG keeps: a page has small digits


@dataclass(frozen=True)
class FoundDigits:
    """What may be the digits of a picture."""

    size: tuple[int, int]  # width and height of the upright picture
    segmentation: Segmentation  # of its lines
    judge: Judge  # that chooses

    @property
    def inputs(self) -> Sequence[NDArray[np.uint8]]:
        """The candidates in the network's form (1, H, W)."""
        return [candidate.pixels for candidate in self.segmentation.candidates]

    def choose(
        self, probabilities: NDArray[np.floating], novelty: NDArray[np.floating]
    ) -> list[list[ChosenPart]]:
        """The digits, line by line, from left to right; lines without any are left out."""
        candidates = self.segmentation.candidates
        costs = self.judge.costs(candidates, probabilities, novelty)
        return [
            [ChosenPart(index, candidates[index].box) for index in way]
            for way in best_ways(self.segmentation, costs)
        ]


@dataclass(frozen=True)
class DigitFinder:
    """Finds the digits of a picture, in an input's form."""

    network: ExtentNetwork
    judge: Judge
    spec: InputSpec

    @classmethod
    def of(cls, learned: Mapping[str, bytes], spec: InputSpec) -> "DigitFinder | None":
        """By the learned files of a checkpoint; none where one is missing.

        Raises:
            ValueError: a file holds something else than it should.
        """
        if not {EXTENTS_FILE, JUDGE_FILE} <= learned.keys():
            return None
        network = ExtentNetwork.from_npz(learned[EXTENTS_FILE])
        return cls(network, Judge.from_npz(learned[JUDGE_FILE]), spec)

    def __call__(self, content: bytes, limits: Limits) -> FoundDigits:
        """Decodes a picture file and finds all that may be a digit.

        Raises:
            InputError: the bytes can't be read as a picture, or it shows more than a number.
        """
        picture = pillow.decode(content, limits.pixels, DETAIL)
        size: tuple[int, int] = picture.info["size"]
        marks = find_marks(picture, size)
        del picture  # it may take much memory, as what follows does
        return FoundDigits(size, segment(marks, self.spec, self.network), self.judge)
