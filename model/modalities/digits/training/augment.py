"""Training digits changed at random, a batch at a time: warp, stroke width and damage.

Everything runs on the images' device, from an explicit generator, so that a batch is a function of
the generator's seed alone.
"""

import torch
from torch import Tensor

from model.data.warp import random_grids, uniform, warp
from model.modalities.digits.options import DigitOptions
from model.modalities.digits.training.damage import damage, dilate, erode


def augment(images: Tensor, options: DigitOptions, generator: torch.Generator) -> Tensor:
    """Changes each image (B, 1, H, W) in [0, 255] in its own way; the same shape and range.

    The batch must be in random order: its place in it decides what damage an image takes.
    """
    ranges = options.augment
    grids = random_grids(len(images), (images.shape[2], images.shape[3]), ranges, generator)
    images = warp(images / 255, grids).clamp(0, 1)
    images = change_stroke_width(images, ranges.stroke_width, generator)
    return damage(images, ranges.distorted, generator) * 255


def change_stroke_width(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Widens or thins strokes (B, 1, H, W) by up to `strength` pixels on either side."""
    change = uniform(len(images), strength, generator)[:, None, None, None]
    changed = torch.where(change > 0, dilate(images), erode(images))
    return images.lerp(changed, change.abs())
