"""Whole-batch tensor augmentation: one random affine map and one elastic warp per image.

Everything runs on the images' device, from an explicit generator, so that a batch is a function of
the generator's seed alone.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import AugmentConfig


def random_grids(
    batch: int, size: tuple[int, int], config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """Where each pixel of each warped image comes from.

    Args:
        batch: B, images that get a map of their own.
        size: (H, W).
        config: ranges of the random maps.
        generator: source of randomness; the grids are made on its device.

    Returns: (B, H, W, 2) x, y in [-1, 1] over the image, for `warp`.
    """
    theta = _affine_maps(batch, config, generator)
    grids = F.affine_grid(theta, [batch, 1, *size], align_corners=False)
    if config.elastic_pixels:
        grids = grids + _elastic_field(batch, size, config, generator)
    return grids


def warp(images: Tensor, grids: Tensor) -> Tensor:
    """Images (B, C, H, W) resampled at `grids`, 0 where these lead outside; the same shape."""
    return F.grid_sample(images, grids, padding_mode="zeros", align_corners=False)


def _uniform(batch: int, limit: float, generator: torch.Generator) -> Tensor:
    """(B,) uniform in [-limit, limit]."""
    return (torch.rand(batch, generator=generator, device=generator.device) * 2 - 1) * limit


def _affine_maps(batch: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """(B, 2, 3) maps from output to input coordinates in [-1, 1]: rotate, shear, scale, shift."""
    angle = _uniform(batch, math.radians(config.rotate_degrees), generator)
    shear = _uniform(batch, config.shear, generator)
    scale_x = 1 + _uniform(batch, config.scale, generator)
    scale_y = 1 + _uniform(batch, config.scale, generator)
    shift_x = _uniform(batch, config.shift, generator)
    shift_y = _uniform(batch, config.shift, generator)
    cos, sin = angle.cos(), angle.sin()
    row_x = torch.stack([cos / scale_x, (shear * cos - sin) / scale_x, shift_x], dim=1)
    row_y = torch.stack([sin / scale_y, (shear * sin + cos) / scale_y, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def _elastic_field(
    batch: int, size: tuple[int, int], config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """(B, H, W, 2) smooth displacements in [-1, 1] coordinates (Simard et al., ICDAR 2003).

    Random displacements on a coarse grid, interpolated bicubically: as smooth as Gaussian-filtered
    noise and far cheaper.
    """
    height, width = size
    knots = config.elastic_knots
    noise = torch.randn(batch, 2, knots, knots, generator=generator, device=generator.device)
    field = F.interpolate(noise, size, mode="bicubic", align_corners=True)
    pixels = torch.tensor([2 / width, 2 / height], device=field.device)
    return field.permute(0, 2, 3, 1) * pixels * config.elastic_pixels
