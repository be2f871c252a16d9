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
    """Samples with their classes.

    Attributes:
        inputs: in the network's form (N, C, *shape).
        labels: class numbers (N,).
        groups: what each sample belongs to (N,), such as a patient; none: each stands alone.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    groups: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> "Labelled":
        """The samples with these numbers."""
        groups = None if self.groups is None else self.groups[index]
        return Labelled(self.inputs[index], self.labels[index], groups)

    def joined(self, other: "Labelled") -> "Labelled":
        """These samples, then those of `other`, without groups."""
        return Labelled(
            np.concatenate([self.inputs, other.inputs]), np.concatenate([self.labels, other.labels])
        )


@dataclass(frozen=True)
class Dataset:
    """All parts of a data set.

    Attributes:
        name: for people.
        digest: SHA-256 of its content.
        class_names: in the order of the class numbers.
        spec: the form of its inputs.
        train: samples to learn from.
        validation: samples to choose by; none: some of `train` are held out.
        test: samples that are scored once, at the end.
    """

    name: str
    digest: str
    class_names: tuple[str, ...]
    spec: InputSpec
    train: Labelled
    validation: Labelled | None
    test: Labelled

    def learning_parts(self, recipe: TrainConfig) -> tuple[Labelled, Labelled]:
        """Training and validation samples, the same for the same recipe."""
        train, validation = self.train, self.validation
        if validation is None:
            train, validation = split(train, recipe.validation_samples, recipe.seed)
        if recipe.train_samples is not None:
            train = train.take(np.arange(min(recipe.train_samples, len(train))))
        return train, validation


def split(data: Labelled, held_out: int, seed: int) -> tuple[Labelled, Labelled]:
    """Splits at random into (all but `held_out`, `held_out`), the same way for the same seed.

    Groups stay whole: as many are held out as it takes to reach the number.
    """
    random = np.random.default_rng(seed)
    if data.groups is None:
        order = random.permutation(len(data))
    else:
        names, members = np.unique(data.groups, return_inverse=True)
        order = random.permutation(len(names))[members].argsort(kind="stable")  # group by group
        ordered = data.groups[order]
        while held_out < len(data) and ordered[held_out] == ordered[held_out - 1]:
            held_out += 1
    return data.take(np.sort(order[held_out:])), data.take(np.sort(order[:held_out]))
