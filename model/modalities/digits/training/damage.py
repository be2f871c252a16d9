"""Damage done to training images: noise, blur, uneven ground, lines, gaps, outlines.

Uploads and the corruptions of MNIST-C (Mu and Gilmer, 2019) show such damage. It is drawn anew for
every image, at random strength; the test suites have generators of their own.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.data.warp import smooth_noise

Damage = Callable[[Tensor, torch.Generator], Tensor]


def damage(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Damages the first images in one way each, and leaves the others as they were.

    The place in the batch decides the kind, so a batch must be in random order already.

    Images (B, 1, H, W) stay in [0, 1]; the share of them is rounded to as many of each kind.
    """
    each = round(share * len(images) / len(DAMAGES))
    if not each:
        return images
    parts = list(images[: each * len(DAMAGES)].split(each))
    damaged = [kind(part, generator) for kind, part in zip(DAMAGES, parts, strict=True)]
    return torch.cat([*damaged, images[each * len(DAMAGES) :]]).clamp(0, 1)


def dilate(images: Tensor) -> Tensor:
    """Each pixel (..., H, W) as the greatest of the 3x3 around it."""
    # Of shifted copies, one axis at a time: many times faster on a CPU than pooling.
    rows = F.pad(images, (0, 0, 1, 1), value=-math.inf)
    rows = rows[..., :-2, :].maximum(rows[..., 1:-1, :]).maximum(rows[..., 2:, :])
    columns = F.pad(rows, (1, 1), value=-math.inf)
    return columns[..., :-2].maximum(columns[..., 1:-1]).maximum(columns[..., 2:])


def erode(images: Tensor) -> Tensor:
    """Each pixel (..., H, W) as the least of the 3x3 around it."""
    return -dilate(-images)


def _uniform(images: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(B, 1, 1, 1), one draw per image."""
    draw = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
    return low + (high - low) * draw


def _coin(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 1, 1, 1) of bools."""
    return _uniform(images, 0, 1, generator) < 0.5


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (H, 1) and columns (1, W) from the middle, in pixels."""
    height, width = _size(images)
    rows = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    columns = torch.arange(width, device=images.device)[None] - (width - 1) / 2
    return rows, columns


def _smooth_field(images: Tensor, knots: int, generator: torch.Generator) -> Tensor:
    """(B, 1, H, W) of interpolated noise, each image's from 0 to 1."""
    field = smooth_noise(len(images), 1, _size(images), knots, generator)
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    return (field - low) / (high - low)


def gaussian_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    strength = _uniform(images, 0.05, 0.4, generator)
    return images + strength * torch.randn(images.shape, generator=generator, device=images.device)


def impulse_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pixels set to black or white."""
    chance = torch.rand(images.shape, generator=generator, device=images.device)
    rate = _uniform(images, 0.01, 0.15, generator)
    return torch.where(chance < rate, 0.0, torch.where(chance > 1 - rate, 1.0, images))


def blur(images: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian kernel of random width along a random direction and across: motion, defocus."""
    reach = torch.arange(-4.0, 5.0, device=images.device)
    rows, columns = reach[:, None], reach[None]
    angle = _uniform(images, 0, math.pi, generator)
    along = angle.cos() * columns + angle.sin() * rows  # (B, 1, 9, 9)
    across = angle.cos() * rows - angle.sin() * columns
    long, short = _uniform(images, 0.4, 3.0, generator), _uniform(images, 0.4, 1.3, generator)
    kernels = torch.exp(-((along / long) ** 2 + (across / short) ** 2) / 2)
    kernels = kernels / kernels.sum((2, 3), keepdim=True)
    blurred = F.conv2d(images.transpose(0, 1), kernels, padding="same", groups=len(images))
    # Either as pale as blurring leaves it or back at full strength.
    peak = blurred.transpose(0, 1).amax((2, 3), keepdim=True).clamp(min=1e-3)
    return blurred.transpose(0, 1) / torch.where(_coin(images, generator), peak, 1.0)


def displaced_pixels(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each pixel taken from near by, as through frosted glass."""
    height, width = _size(images)
    identity = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    grids = F.affine_grid(identity, list(images.shape), align_corners=False)
    moves = torch.randn(grids.shape, generator=generator, device=images.device)
    pixel = torch.tensor([2 / width, 2 / height], device=images.device)
    strength = _uniform(images, 0.3, 1.2, generator)
    return F.grid_sample(images, grids + moves * pixel * strength, align_corners=False)


def lifted_ground(images: Tensor, generator: torch.Generator) -> Tensor:
    """A ground that is not black, even or in clouds, and strokes that fade into it."""
    level = _uniform(images, 0.05, 0.7, generator)
    clouds = _smooth_field(images, 5, generator)
    ground = level * torch.where(_coin(images, generator), 1.0, clouds)
    added = images + ground  # saturates, as light does
    blended = ground + images * (1 - ground)
    return torch.where(_coin(images, generator), added, blended)


def drawn_line(images: Tensor, generator: torch.Generator) -> Tensor:
    """A line across the image: straight or zigzag, drawn through or dotted, white or black."""
    rows, columns = _coordinates(images)
    angle = _uniform(images, 0, math.pi, generator)
    along = angle.cos() * columns + angle.sin() * rows
    across = angle.cos() * rows - angle.sin() * columns + _uniform(images, -9, 9, generator)
    phase = along / _uniform(images, 3, 12, generator) + _uniform(images, 0, 1, generator)
    swing = _uniform(images, 0, 4, generator) * _coin(images, generator)
    path = swing * (4 * (phase - phase.round()).abs() - 1)
    half_width = _uniform(images, 0.4, 1.2, generator)
    ink = (half_width + 0.5 - (across - path).abs()).clamp(0, 1)
    dots = along / _uniform(images, 2, 6, generator)
    gaps = _coin(images, generator) & (dots - dots.floor() < 0.5)
    ink = torch.where(gaps, 0.0, ink)
    white = _uniform(images, 0, 1, generator) < 0.8
    return torch.where(white, torch.maximum(images, ink), images * (1 - ink))


def changed_rectangle(images: Tensor, generator: torch.Generator) -> Tensor:
    """A rectangle or a stripe across, inverted or blank."""
    rows, columns = _coordinates(images)
    height, width = _size(images)
    inverted = _coin(images, generator)
    # What is inverted can still be read under a long stripe; what is blank must stay small.
    long = torch.where(inverted, 1.0, 0.25)
    tall, flat = _uniform(images, 1, 5, generator), _uniform(images, 2, width / 2, generator) * long
    upright = _coin(images, generator)
    half_height = torch.where(upright, flat * height / width, tall)
    half_width = torch.where(upright, tall, flat)
    near_row = (rows - _uniform(images, -8, 8, generator)).abs() < half_height
    near_column = (columns - _uniform(images, -8, 8, generator)).abs() < half_width
    whole = inverted & _coin(images, generator)  # from edge to edge
    near_row, near_column = near_row | (whole & upright), near_column | (whole & ~upright)
    return torch.where(near_row & near_column, torch.where(inverted, 1 - images, 0.0), images)


def outlines(images: Tensor, generator: torch.Generator) -> Tensor:
    """Only the edges of the strokes, inside or outside of them, as an edge detector leaves."""
    strokes = (images > _uniform(images, 0.2, 0.7, generator)).float()
    inside, outside = strokes - erode(strokes), dilate(strokes) - strokes
    edges = torch.where(_coin(images, generator), inside, outside)
    return edges * _uniform(images, 0.6, 1, generator)


def spatter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blots of white over the image, or of black."""
    blots = (_smooth_field(images, 12, generator) - _uniform(images, 0.6, 0.85, generator)) * 8
    blots = blots.clamp(0, 1) * _uniform(images, 0.5, 1, generator)
    white = _coin(images, generator)
    return torch.where(white, torch.maximum(images, blots), images * (1 - blots))


DAMAGES: tuple[Damage, ...] = (
    gaussian_noise,
    impulse_noise,
    blur,
    displaced_pixels,
    lifted_ground,
    drawn_line,
    changed_rectangle,
    outlines,
    spatter,
)
