"""Whole-batch tensor augmentation: a random affine map, elastic warp, stroke width and damage.

Everything runs on the images' device, from an explicit generator, so that a batch is a function of
the generator's seed alone.
"""

import torch
from torch import Tensor

from model.checkpoint.config import AugmentConfig
from model.data.warp import _uniform, random_grids, warp
from model.modalities.digits.training.damage import dilate, distort, erode


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Each image (B, 1, H, W) in [0, 255] changed in its own way; the same shape and range.

    The batch must be in random order: its place in it decides what damage an image takes.
    """
    grids = random_grids(len(images), (images.shape[2], images.shape[3]), config, generator)
    images = warp(images / 255, grids).clamp(0, 1)
    images = change_stroke_width(images, config.stroke_width, generator)
    return distort(images, config.distorted, generator) * 255


def change_stroke_width(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Strokes (B, 1, H, W) widened or thinned by up to `strength` pixels on either side."""
    change = _uniform(len(images), strength, generator)[:, None, None, None]
    changed = torch.where(change > 0, dilate(images), erode(images))
    return images.lerp(changed, change.abs())
