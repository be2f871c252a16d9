"""Whole batches of images warped at random: an affine map each, and an elastic one.

Everything runs on the images' device, from an explicit generator, so that a batch is a function of
the generator's seed alone.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model.modalities.training import WarpRanges


def random_grids(
    batch: int, size: tuple[int, int], ranges: WarpRanges, generator: torch.Generator
) -> Tensor:
    """Where each pixel of B warped images of a size (H, W) comes from, on the generator's device.

    Returns: (B, H, W, 2) x, y in [-1, 1] over the image, for `warp`.
    """
    height, width = size
    maps = _affine_maps(batch, ranges, generator)[:, :, None, None]  # (B, 2, 1, 1, 3)
    y = (2 * torch.arange(height, device=generator.device)[:, None] + 1) / height - 1
    x = (2 * torch.arange(width, device=generator.device)[None] + 1) / width - 1
    # Written out: `affine_grid` is a product of many tiny matrices, slow on a CPU.
    grids = (maps[..., 0] * x + maps[..., 1] * y + maps[..., 2]).permute(0, 2, 3, 1)
    if ranges.elastic_pixels:
        grids = grids + _elastic_field(batch, size, ranges, generator)
    return grids


def warp(images: Tensor, grids: Tensor) -> Tensor:
    """Images (B, C, H, W) resampled at `grids`, 0 where these lead outside; the same shape."""
    return F.grid_sample(images, grids, padding_mode="zeros", align_corners=False)


def uniform(batch: int, limit: float, generator: torch.Generator) -> Tensor:
    """(B,) uniform in [-limit, limit]."""
    return (torch.rand(batch, generator=generator, device=generator.device) * 2 - 1) * limit


def smooth_noise(
    batch: int, channels: int, size: tuple[int, int], knots: int, generator: torch.Generator
) -> Tensor:
    """(B, channels, H, W): normal noise on a grid of `knots` squared, interpolated bicubically."""
    noise = torch.randn(batch, channels, knots, knots, generator=generator, device=generator.device)
    down, across = (_interpolation(knots, length, generator.device) for length in size)
    return down @ noise @ across.T


def _affine_maps(batch: int, ranges: WarpRanges, generator: torch.Generator) -> Tensor:
    """(B, 2, 3) maps from output to input coordinates in [-1, 1]: rotate, shear, scale, shift."""
    # A product of two draws: most images turn and lean little, some as far as they may.
    angle = uniform(batch, math.radians(ranges.rotate_degrees), generator)
    angle = angle * uniform(batch, 1.0, generator)
    shear = uniform(batch, ranges.shear, generator) * uniform(batch, 1.0, generator)
    scale_x = 1 + uniform(batch, ranges.scale, generator)
    scale_y = 1 + uniform(batch, ranges.scale, generator)
    shift_x = uniform(batch, ranges.shift, generator)
    shift_y = uniform(batch, ranges.shift, generator)
    cos, sin = angle.cos(), angle.sin()
    row_x = torch.stack([cos / scale_x, (shear * cos - sin) / scale_x, shift_x], dim=1)
    row_y = torch.stack([sin / scale_y, (shear * sin + cos) / scale_y, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def _elastic_field(
    batch: int, size: tuple[int, int], ranges: WarpRanges, generator: torch.Generator
) -> Tensor:
    """(B, H, W, 2) smooth displacements in [-1, 1] coordinates (Simard et al., ICDAR 2003).

    Random displacements on a coarse grid, interpolated bicubically: as smooth as Gaussian-filtered
    noise and far cheaper.
    """
    height, width = size
    field = smooth_noise(batch, 2, size, ranges.elastic_knots, generator)
    pixels = torch.tensor([2 / width, 2 / height], device=field.device)
    return field.permute(0, 2, 3, 1) * pixels * ranges.elastic_pixels


@functools.lru_cache
def _interpolation(knots: int, length: int, device: torch.device) -> Tensor:
    """(length, knots) of bicubic weights; a product with them is faster than `interpolate`."""
    rows = torch.eye(knots, device=device)[None, None]
    matrix = F.interpolate(rows, (length, knots), mode="bicubic", align_corners=True)
    return matrix[0, 0]
