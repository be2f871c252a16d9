"""What a suite measures, and what it gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.card import Card
from model.checkpoint.folder import Checkpoint
from model.data.labelled import Dataset
from model.evaluation.predictions import predict
from model.evaluation.scores import Logits
from model.network.recognizer import Recognizer


@dataclass(frozen=True)
class Subject:
    """What is measured, and on what."""

    checkpoint: Checkpoint  # to measure
    recognizer: Recognizer  # of the checkpoint, on its device
    dataset: Dataset  # all parts of it

    @property
    def card(self) -> Card:
        """Of the checkpoint."""
        return self.checkpoint.card

    def predict(self, inputs: NDArray[Any]) -> tuple[Logits, NDArray[np.float32]]:
        """Inputs (N, C, *shape) -> logits (N, classes), novelty (N,)."""
        return predict(self.recognizer, inputs)

    def read(self, inputs: NDArray[Any]) -> NDArray[np.int64]:
        """Inputs (N, C, *shape) -> the most probable classes (N,)."""
        classes: NDArray[np.int64] = self.predict(inputs)[0].argmax(axis=1)
        return classes


@dataclass(frozen=True)
class Report:
    """What a suite found."""

    table: str  # for a terminal
    figures: dict[str, Any]  # for JSON


Suite = Callable[[Subject], Report]
