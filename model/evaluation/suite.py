"""What a suite measures, and what it gives."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.card import Card
from model.data.mnist import MNIST
from model.modalities.digits.form import prepare_file
from model.network.recognizer import Recognizer


@dataclass(frozen=True)
class Subject:
    """What is measured, and on what."""

    card: Card
    recognizer: Recognizer
    predict: Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
    mnist: MNIST

    def read(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Images (N, H, W) in the model's form -> the most probable classes (N,)."""
        classes: NDArray[np.int64] = self.predict(images)[0].argmax(axis=1)
        return classes

    def read_files(self, files: Iterable[bytes]) -> NDArray[np.int64]:
        """Image files, each prepared as the service would -> the most probable classes (N,)."""
        prepared = [self.prepare_file(content)[0] for content in files]
        return self.read(np.stack(prepared))

    def prepare_file(self, content: bytes) -> NDArray[np.uint8]:
        """An image file -> the model's input (C, H, W)."""
        return prepare_file(content, self.card.preprocessing)


@dataclass(frozen=True)
class Report:
    """A suite's result."""

    table: str  # for a terminal
    figures: dict[str, Any]  # for JSON


Suite = Callable[[Subject], Report]
