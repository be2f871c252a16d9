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
    """What is measured, and on what.

    Attributes:
        checkpoint: to measure.
        recognizer: of the checkpoint, on its device.
        dataset: all parts of it.
    """

    checkpoint: Checkpoint
    recognizer: Recognizer
    dataset: Dataset

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
    """What a suite found.

    Attributes:
        table: for a terminal.
        figures: for JSON.
    """

    table: str
    figures: dict[str, Any]


Suite = Callable[[Subject], Report]
