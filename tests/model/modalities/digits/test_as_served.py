"""Training digits as the service meets them."""

import numpy as np
import pytest

from model.checkpoint.folder import Checkpoint
from model.data.labelled import Labelled
from model.errors import UserError
from model.modalities.digits.modality import SPEC
from model.modalities.digits.options import DigitOptions
from model.modalities.digits.training.as_served import LONGEST_STRIP, served_digits
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
DIGITS = Labelled(IMAGES[:, None], LABELS).take(np.arange(len(LABELS) // 2))
OPTIONS = DigitOptions(uploads=20, strips=4)


def test_they_are_as_many_in_form_labelled_and_the_same_again(checkpoint: Checkpoint):
    made = served_digits(DIGITS, SPEC, OPTIONS, checkpoint.parts, seed=1)
    assert made is not None
    assert 20 + 4 <= len(made) < 20 + 4 * LONGEST_STRIP * 4
    assert made.inputs.shape[1:] == SPEC.array_shape
    assert made.inputs.dtype == np.uint8
    ink = made.inputs.max(axis=(1, 2, 3))
    assert (ink > 100).all()
    # Digits of one class look alike: each is nearer to the mean of its own class than of others.
    means = np.stack([IMAGES[digit == LABELS].mean(axis=0) for digit in range(10)]).reshape(10, -1)
    flat = made.inputs.reshape(len(made), -1).astype(np.float64)
    nearest = ((flat[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == made.labels).mean() > 0.6
    again = served_digits(DIGITS, SPEC, OPTIONS, checkpoint.parts, seed=1)
    assert again is not None
    assert np.array_equal(again.inputs, made.inputs)
    assert np.array_equal(again.labels, made.labels)


def test_none_are_made_where_none_are_wanted_and_strips_need_what_finds_digits():
    assert served_digits(DIGITS, SPEC, DigitOptions(), {}, seed=1) is None
    with pytest.raises(UserError, match="--start-from"):
        served_digits(DIGITS, SPEC, OPTIONS, {}, seed=1)
