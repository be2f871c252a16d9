"""Damage to training images: each kind does its own, in range, and the seed decides it."""

import pytest
import torch
from torch import Tensor

from model.modalities.digits.options import DigitOptions
from model.modalities.digits.training.augment import augment, change_stroke_width
from model.modalities.digits.training.damage import DAMAGES, Damage, damage, dilate, erode
from tests.digits import load_digits


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """(90, 1, 28, 28) in [0, 1]."""
    return torch.tensor(load_digits()[0][:90])[:, None].float() / 255


@pytest.mark.parametrize("kind", DAMAGES, ids=lambda kind: kind.__name__)
def test_each_changes_its_images_and_leaves_the_digit(kind: Damage, images: Tensor):
    damaged = kind(images, seeded(1))
    assert damaged.shape == images.shape
    assert torch.isfinite(damaged).all()
    assert torch.equal(damaged, kind(images, seeded(1)))
    changes = (damaged - images).abs().mean((1, 2, 3))
    assert (changes > 1e-3).float().mean() > 0.7
    assert len(changes.unique()) > 80  # a strength of its own for each image
    # What is left has more in common with the digit it was than with another one.
    flat, clean = damaged.flatten(1), images.flatten(1)
    own = torch.cosine_similarity(flat, clean).mean()
    other = torch.cosine_similarity(flat, clean.roll(1, 0)).mean()
    assert own > other + 0.15


def test_share_is_damaged_and_no_more(images: Tensor):
    damaged = damage(images, 0.5, seeded())
    same = (damaged == images).flatten(1).all(1)
    assert same[45:].all()
    assert same[:45].sum() < 10
    assert 0 <= damaged.min() <= damaged.max() <= 1
    assert torch.equal(damage(images, 0.0, seeded()), images)


def test_augmented_batch_stays_in_range_and_follows_its_seed(images: Tensor):
    options = DigitOptions()
    augmented = augment(images * 255, options, seeded(5))
    assert augmented.shape == images.shape
    assert 0 <= augmented.min() < augmented.max() <= 255
    assert torch.equal(augmented, augment(images * 255, options, seeded(5)))
    assert not torch.equal(augmented, augment(images * 255, options, seeded(6)))


def test_dilation_and_erosion_are_pooling(images: Tensor):
    pool = torch.nn.functional.max_pool2d
    assert torch.equal(dilate(images), pool(images, 3, stride=1, padding=1))
    assert torch.equal(erode(images), -pool(-images, 3, stride=1, padding=1))


def test_stroke_width_goes_both_ways(images: Tensor):
    ink = change_stroke_width(images, 1.0, seeded()).sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert ink.min() < 0.6
    assert ink.max() > 1.5
    assert torch.equal(change_stroke_width(images, 0.0, seeded()), images)
