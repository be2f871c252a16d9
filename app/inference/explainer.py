"""Explanations: where the model looked, and what the answer rests on. No HTTP in here."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.batcher import Batcher
from app.inference.engines import EngineError, ExplainingEngine, NoExplanationsError
from app.inference.predictor import Classification, Predictor
from model.checkpoint.attribution import occlusion, spread

# Explanations take tens of times a prediction's time: few may wait.
MAX_WAITING = 8


@dataclass(frozen=True, slots=True)
class Maps:
    """Of one sample, over its positions."""

    grid: tuple[int, ...]  # positions of the model's own attention along each axis
    attention: NDArray[np.float32]  # (depth, latents, *shape), mean over heads; each sums to 1
    attribution: NDArray[np.float32]  # (*shape), nats


@dataclass(frozen=True, slots=True)
class Explanation:
    """A prediction and what it rests on."""

    prediction: Classification
    values: NDArray[Any]  # (C, *shape), what the model saw
    maps: Maps


class Explainer:
    """Explains one sample at a time in a thread of its own, so that predictions go on beside it.

    What that takes is loaded by `load`, or else for the first explanation.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.card = predictor.card
        self._predictor = predictor
        self._engine: ExplainingEngine | None = None
        self._loading = threading.Lock()
        self._batcher = Batcher(self._explain, max_batch=1, max_queue=MAX_WAITING)

    async def explain(self, content: bytes, deadline: float) -> Explanation:
        """Classifies one file as `Predictor.predict` does, and explains the answer.

        Args:
            content: a whole file.
            deadline: on the event loop's clock.

        Raises:
            InputError: the bytes can't be read.
            BatcherError: too many wait, the deadline passed, or `close` was called.
            EngineError: the engine can't compute this sample.
            NoExplanationsError: the checkpoint lacks what explains, or holds something else.
        """
        prediction, values = await self._predictor.predict_and_show(content, deadline)
        (outcome,) = await self._batcher.submit([(values, prediction.label)], deadline)
        if isinstance(outcome.value, Exception):
            raise outcome.value
        return Explanation(prediction, values, outcome.value)

    async def close(self) -> None:
        """Takes no more samples and returns when those taken have been explained."""
        await self._batcher.close()
        self._engine = None

    def load(self) -> ExplainingEngine:
        """Loads and proves what explains, unless that is done; blocks.

        Raises:
            NoExplanationsError: the checkpoint lacks it.
            EngineError: the checkpoint holds something that does not explain its model.
        """
        with self._loading:
            if self._engine is None:
                self._engine = self._predictor.engine.explaining()
            return self._engine

    def _explain(self, items: Sequence[tuple[NDArray[Any], str]]) -> list[Maps]:
        try:
            engine = self.load()
        except EngineError as error:
            raise NoExplanationsError(str(error)) from error
        card = self._predictor.card
        ((values, label),) = items  # a batch of one
        attention = engine.attention(values[None])[0].mean(axis=1)  # (depth, L, *grid)
        attribution = occlusion(
            values,
            card.labels.index(label),
            lambda samples: card.calibration.log_probabilities(engine.logits(samples)),
        )
        looked = spread(attention, values.shape[1:])
        return [Maps(attention.shape[2:], looked, attribution)]
