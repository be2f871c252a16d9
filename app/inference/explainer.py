"""Explanations: where the model looked, and which ink the answer rests on. No HTTP in here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.inference.batcher import Batcher
from app.inference.engines import ExplainingEngine
from app.inference.predictor import Prediction, Predictor
from model.checkpoint.attribution import occlusion, spread

# Explanations take tens of times a prediction's time: few may wait.
MAX_WAITING = 8


@dataclass(frozen=True, slots=True)
class Maps:
    """Of one image, over its pixels."""

    grid: tuple[int, ...]  # rows and columns of the model's own attention
    attention: NDArray[np.float32]  # (depth, latents, H, W), mean over heads; each sums to 1
    attribution: NDArray[np.float32]  # (H, W), nats


@dataclass(frozen=True, slots=True)
class Explanation:
    """A prediction and what it rests on."""

    prediction: Prediction
    pixels: NDArray[np.uint8]  # (C, H, W), what the model saw
    maps: Maps


class Explainer:
    """Explains one image at a time in a thread of its own, so that predictions go on beside it.

    What that takes is loaded for the first explanation.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.card = predictor.card
        self._predictor = predictor
        self._engine: ExplainingEngine | None = None
        self._batcher = Batcher(self._explain, max_batch=1, max_queue=MAX_WAITING)

    async def explain(self, image: bytes, deadline: float) -> Explanation:
        """Reads one image as `Predictor.predict` does, and explains the answer.

        Args:
            image: a whole image file.
            deadline: on the event loop's clock.

        Raises:
            ImageError: the bytes can't be read as an image.
            BatcherError: too many wait, the deadline passed, or `close` was called.
            EngineError: the engine can't compute this image, or can't explain.
        """
        prediction, pixels = await self._predictor.predict_and_show(image, deadline)
        (outcome,) = await self._batcher.submit([(pixels, prediction.label)], deadline)
        if isinstance(outcome.value, Exception):
            raise outcome.value
        return Explanation(prediction, pixels, outcome.value)

    async def close(self) -> None:
        """Takes no more images and returns when those taken have been explained."""
        await self._batcher.close()

    def _explain(self, items: Sequence[tuple[NDArray[np.uint8], str]]) -> list[Maps]:
        if self._engine is None:
            self._engine = self._predictor.engine.explaining()
        engine, card = self._engine, self._predictor.card
        maps = []
        for pixels, label in items:
            attention = engine.attention(pixels[None])[0].mean(axis=1)  # (depth, L, *grid)
            height, width = pixels.shape[1:]
            attribution = occlusion(
                pixels,
                card.labels.index(label),
                lambda images: card.calibration.log_probabilities(engine.logits(images)),
            )
            grid = attention.shape[2:]
            maps.append(Maps(grid, spread(attention, (height, width)), attribution))
        return maps
