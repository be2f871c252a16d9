"""Samples that show several things: find these, classify each. No HTTP in here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.decoder_process import found_in
from app.inference.engines import EngineError
from app.inference.predictor import Classification, Predictor, Timing
from model.modalities import FindParts

# Candidates that take a place in the queue at a time, so that other requests get theirs.
AT_ONCE = 64
# Finding the parts of a small picture takes as much as decoding one so many times as large; of a
# larger one no more than so many pixels.
MORE_WORK, MOST_WORK = 16, 10_000_000


@dataclass(frozen=True, slots=True)
class PlacedPart:
    """One part of a sample."""

    classification: Classification
    box: tuple[float, float, float, float]  # x, y, width, height in pixels of the sample


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sample says, line by line, each from left to right."""

    size: tuple[int, int]  # width and height of the sample
    lines: tuple[tuple[PlacedPart, ...], ...]
    timing: Timing


async def read(
    predictor: Predictor, find_parts: FindParts, content: bytes, deadline: float
) -> Reading:
    """Finds and classifies all parts of a sample.

    Args:
        predictor: that classifies each part.
        find_parts: the predictor's.
        content: a whole file.
        deadline: on the event loop's clock.

    Raises:
        InputError: the bytes can't be read, or show more parts than are looked for.
        BatcherError: too many wait, the deadline passed, or `Predictor.close` was called.
        EngineError: the engine can't compute a part.
    """

    work = min(MORE_WORK * predictor.modality.cost(content, predictor.limits).pixels, MOST_WORK)
    find_in = partial(found_in, find_parts, predictor.limits)
    found = await predictor.in_decoder(find_in, content, deadline, work)
    candidates = await _classified(predictor, found.inputs, deadline)
    probabilities = np.array([candidate.probabilities for candidate in candidates])
    novelty = np.array([candidate.novelty for candidate in candidates])
    lines = tuple(
        tuple(PlacedPart(candidates[part.index], part.box) for part in line)
        for line in found.choose(probabilities, novelty)
    )
    slowest = Timing.slowest(candidate.timing for candidate in candidates)
    return Reading(found.size, lines, slowest or Timing(0.0, 0.0, 0.0, 0.0))


async def _classified(
    predictor: Predictor, samples: Sequence[NDArray[Any]], deadline: float
) -> list[Classification]:
    classifications: list[Classification] = []
    for start in range(0, len(samples), AT_ONCE):
        for outcome in await predictor.predict_arrays(samples[start : start + AT_ONCE], deadline):
            if isinstance(outcome, EngineError):
                raise outcome
            classifications.append(outcome)
    return classifications
