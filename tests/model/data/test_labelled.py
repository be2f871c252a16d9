"""Samples are parted at random, but the same way for the same seed."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.checkpoint.card import InputSpec
from model.checkpoint.config import TrainConfig
from model.data.labelled import Dataset, Labelled, split

SPEC = InputSpec(name="x", modality="digits", channels=1, shape=(1,), dtype="float32")


def numbered(n: int) -> Labelled:
    return Labelled(np.zeros((n, 1, 1), np.float32), np.arange(n))


@given(st.integers(2, 200), st.integers(0, 2**32 - 1), st.data())
def test_split_parts_the_data_and_is_repeatable(n: int, seed: int, data: st.DataObject):
    held_out = data.draw(st.integers(1, n - 1))
    kept, out = split(numbered(n), held_out, seed)
    assert len(out) == held_out
    assert sorted([*kept.labels, *out.labels]) == list(range(n))
    again = split(numbered(n), held_out, seed)
    assert (again[0].labels == kept.labels).all()


def test_training_takes_the_parts_that_there_are():
    recipe = TrainConfig(validation_samples=10, train_samples=50)
    whole = numbered(100)
    dataset = Dataset("d", "0", ("a",), SPEC, whole, None, numbered(5))
    train, validation = dataset.learning_parts(recipe)
    assert (len(train), len(validation)) == (50, 10)
    assert not set(train.labels) & set(validation.labels)
    parted = dataclasses.replace(dataset, validation=numbered(7))
    train, validation = parted.learning_parts(recipe)
    assert train.labels.tolist() == list(range(50))
    assert len(validation) == 7
