"""Distortions of training images: each does its damage, in range, and the seed decides it."""

import pytest
import torch
from torch import Tensor

from model.checkpoint.config import AugmentConfig
from model.modalities.digits.training.augment import augment, change_stroke_width
from model.modalities.digits.training.damage import (
    DISTORTIONS,
    Distortion,
    dilate,
    distort,
    erode,
    smooth_noise,
)
from tests.digits import load_digits


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """(90, 1, 28, 28) in [0, 1]."""
    return torch.tensor(load_digits()[0][:90])[:, None].float() / 255


@pytest.mark.parametrize("kind", DISTORTIONS, ids=lambda kind: kind.__name__)
def test_each_changes_its_images_and_leaves_the_digit(kind: Distortion, images: Tensor):
    distorted = kind(images, seeded(1))
    assert distorted.shape == images.shape
    assert torch.isfinite(distorted).all()
    assert torch.equal(distorted, kind(images, seeded(1)))
    changes = (distorted - images).abs().mean((1, 2, 3))
    assert (changes > 1e-3).float().mean() > 0.7
    assert len(changes.unique()) > 80  # a strength of its own for each image
    # What is left has more in common with the digit it was than with another one.
    flat, clean = distorted.flatten(1), images.flatten(1)
    own = torch.cosine_similarity(flat, clean).mean()
    other = torch.cosine_similarity(flat, clean.roll(1, 0)).mean()
    assert own > other + 0.15


def test_share_is_distorted_and_no_more(images: Tensor):
    distorted = distort(images, 0.5, seeded())
    same = (distorted == images).flatten(1).all(1)
    assert same[45:].all()
    assert same[:45].sum() < 10
    assert 0 <= distorted.min() <= distorted.max() <= 1
    assert torch.equal(distort(images, 0.0, seeded()), images)


def test_augmented_batch_stays_in_range_and_follows_its_seed(images: Tensor):
    config = AugmentConfig()
    augmented = augment(images * 255, config, seeded(5))
    assert augmented.shape == images.shape
    assert 0 <= augmented.min() < augmented.max() <= 255
    assert torch.equal(augmented, augment(images * 255, config, seeded(5)))
    assert not torch.equal(augmented, augment(images * 255, config, seeded(6)))


def test_dilation_and_erosion_are_pooling(images: Tensor):
    pool = torch.nn.functional.max_pool2d
    assert torch.equal(dilate(images), pool(images, 3, stride=1, padding=1))
    assert torch.equal(erode(images), -pool(-images, 3, stride=1, padding=1))


def test_stroke_width_goes_both_ways(images: Tensor):
    ink = change_stroke_width(images, 1.0, seeded()).sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert ink.min() < 0.6
    assert ink.max() > 1.5
    assert torch.equal(change_stroke_width(images, 0.0, seeded()), images)


def test_smooth_noise_is_bicubic_interpolation():
    noise = torch.randn(3, 2, 6, 6, generator=seeded(4))
    expected = torch.nn.functional.interpolate(noise, (28, 20), mode="bicubic", align_corners=True)
    torch.testing.assert_close(smooth_noise(3, 2, (28, 20), 6, seeded(4)), expected)
