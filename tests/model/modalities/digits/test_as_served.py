"""Training digits as the service meets them."""

import numpy as np

from model.data.labelled import LabelledImages
from model.modalities.digits.modality import SPEC
from model.modalities.digits.training.as_served import LONGEST_STRIP, served_digits
from tests.digits import load_digits


def test_they_are_as_many_in_form_labelled_and_the_same_again():
    images, labels = load_digits()
    digits = LabelledImages(images, labels).take(np.arange(len(labels) // 2))
    made = served_digits(digits, 20, 4, SPEC, seed=1)
    assert 20 + 4 <= len(made) < 20 + 4 * LONGEST_STRIP * 4
    assert made.images.shape[1:] == (28, 28)
    assert made.images.dtype == np.uint8
    ink = made.images.max(axis=(1, 2))
    assert (ink > 100).all()
    # Digits of one class look alike: each is nearer to the mean of its own class than of others.
    means = np.stack([images[labels == digit].mean(axis=0) for digit in range(10)]).reshape(10, -1)
    flat = made.images.reshape(len(made), -1).astype(np.float64)
    nearest = ((flat[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == made.labels).mean() > 0.6
    again = served_digits(digits, 20, 4, SPEC, seed=1)
    assert np.array_equal(again.images, made.images)
    assert np.array_equal(again.labels, made.labels)
