"""Labelled samples in the network's form, and how they are parted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.card import InputSpec
from model.checkpoint.config import TrainConfig
from model.errors import UserError


class DatasetError(UserError):
    """The data set is missing or is not what it should be; the message says what to do."""


@dataclass(frozen=True)
class Labelled:
    """Samples with their classes."""

    inputs: NDArray[Any]  # in the network's form (N, C, *shape)
    labels: NDArray[np.int64]  # class numbers (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> "Labelled":
        """The samples with these numbers."""
        return Labelled(self.inputs[index], self.labels[index])

    def joined(self, other: "Labelled") -> "Labelled":
        """These samples, then those of `other`."""
        return Labelled(
            np.concatenate([self.inputs, other.inputs]), np.concatenate([self.labels, other.labels])
        )


@dataclass(frozen=True)
class Dataset:
    """All parts of a data set."""

    name: str  # for people
    digest: str  # SHA-256 of its content
    class_names: tuple[str, ...]  # in the order of the class numbers
    spec: InputSpec  # the form of its inputs
    train: Labelled  # samples to learn from
    validation: Labelled | None  # samples to choose by; none: some of `train` are held out
    test: Labelled  # samples that are scored once, at the end

    def learning_parts(self, recipe: TrainConfig) -> tuple[Labelled, Labelled]:
        """Training and validation samples, the same for the same recipe."""
        train, validation = self.train, self.validation
        if validation is None:
            train, validation = split(train, recipe.validation_samples, recipe.seed)
        if recipe.train_samples is not None:
            train = train.take(np.arange(min(recipe.train_samples, len(train))))
        return train, validation


def split(data: Labelled, held_out: int, seed: int) -> tuple[Labelled, Labelled]:
    """Splits at random into (all but `held_out`, `held_out`), the same way for the same seed."""
    order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[held_out:])), data.take(np.sort(order[:held_out]))
