"""Numbers of several digits: find them in a picture, read each. No HTTP in here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.inference.engines import EngineError
from app.inference.predictor import Prediction, Predictor, Timing
from model.checkpoint.config import Preprocessing
from model.modalities.digits.reading.segment import (
    Candidate,
    Segmentation,
    find_marks,
    judge,
    segment,
)
from model.modalities.pillow import ImageError, decode

# Pixels of the longer side that a reduced JPEG keeps: a page has small digits.
DETAIL = 1600
# Candidates that take a place in the queue at a time, so that other requests get theirs.
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class PlacedDigit:
    """One digit of a number."""

    prediction: Prediction
    box: tuple[float, float, float, float]  # x, y, width, height in pixels of the upright picture


@dataclass(frozen=True, slots=True)
class Number:
    """What a picture says, line by line, each from left to right."""

    size: tuple[int, int]  # width and height of the upright picture
    lines: tuple[tuple[PlacedDigit, ...], ...]
    timing: Timing


async def read_number(
    predictor: Predictor, image: bytes, max_pixels: int, deadline: float
) -> Number:
    """Reads all digits of a picture.

    Args:
        predictor: that reads each digit.
        image: a whole image file.
        max_pixels: of the image, at most.
        deadline: on the event loop's clock.

    Raises:
        ImageError: the bytes can't be read as an image.
        TooManyMarksError: the picture shows more than a number.
        BatcherError: too many wait, the deadline passed, or `Predictor.close` was called.
        EngineError: the engine can't compute an image.
    """
    spec = predictor.card.preprocessing
    found = await predictor.in_decoder(
        lambda content: _find(content, max_pixels, spec), image, deadline
    )
    if isinstance(found, ImageError):
        raise found
    segmentation, size = found
    predictions = await _predict(predictor, segmentation.candidates, deadline)
    probabilities = np.array([prediction.probabilities for prediction in predictions])
    novelty = np.array([prediction.novelty for prediction in predictions])
    costs = judge(segmentation.candidates, probabilities, novelty)
    lines = tuple(
        tuple(PlacedDigit(predictions[i], segmentation.candidates[i].box) for i in way)
        for way in segmentation.best(costs)
    )
    slowest = Timing.slowest(prediction.timing for prediction in predictions)
    return Number(size, lines, slowest or Timing(0.0, 0.0, 0.0, 0.0))


def _find(
    image: bytes, max_pixels: int, spec: Preprocessing
) -> tuple[Segmentation, tuple[int, int]] | ImageError:
    """All that may be a digit, and the size of the upright picture."""
    try:
        picture = decode(image, max_pixels, DETAIL)
    except ImageError as error:
        return error
    size: tuple[int, int] = picture.info["size"]
    return segment(find_marks(picture, size), spec), size


async def _predict(
    predictor: Predictor, candidates: Sequence[Candidate], deadline: float
) -> list[Prediction]:
    predictions: list[Prediction] = []
    for start in range(0, len(candidates), AT_ONCE):
        images = [candidate.pixels for candidate in candidates[start : start + AT_ONCE]]
        for outcome in await predictor.predict_arrays(images, deadline):
            if isinstance(outcome, EngineError):
                raise outcome
            predictions.append(outcome)
    return predictions
