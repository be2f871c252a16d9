"""What the warp does, its ranges, and that its seed decides it."""

import math

import torch

from model.data.warp import random_grids, smooth_noise, warp
from model.modalities.training import WarpRanges

STILL = WarpRanges(rotate_degrees=0, shear=0, scale=0, shift=0, elastic_pixels=0)
SIZE = (28, 28)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blob(row: int, column: int) -> torch.Tensor:
    image = torch.zeros(1, 1, *SIZE)
    image[..., row - 1 : row + 2, column - 1 : column + 2] = 1.0
    return image


def centre_of_mass(image: torch.Tensor) -> tuple[float, float]:
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    mass = image.sum()
    return float((image * rows).sum() / mass), float((image * columns).sum() / mass)


def test_no_ranges_change_nothing():
    images = torch.rand(5, 1, *SIZE)
    grids = random_grids(5, SIZE, STILL, seeded())
    torch.testing.assert_close(warp(images, grids), images, atol=1e-4, rtol=0)


def test_seed_decides_and_images_get_maps_of_their_own():
    config = WarpRanges()
    grids = random_grids(4, SIZE, config, seeded(7))
    assert torch.equal(grids, random_grids(4, SIZE, config, seeded(7)))
    assert not torch.equal(grids, random_grids(4, SIZE, config, seeded(8)))
    assert not torch.equal(grids[0], grids[1])


def test_shift_stays_in_its_range_and_reaches_it():
    config = STILL.model_copy(update={"shift": 0.25})  # of half the size: 3.5 pixels
    warped = warp(blob(14, 14).expand(500, -1, -1, -1), random_grids(500, SIZE, config, seeded()))
    offsets = torch.tensor([centre_of_mass(image[0]) for image in warped]) - 14
    assert offsets.abs().max() <= 3.51
    assert offsets.abs().max() > 3.2


def test_rotation_keeps_the_distance_from_the_middle():
    config = STILL.model_copy(update={"rotate_degrees": 30.0})
    warped = warp(blob(6, 14).expand(200, -1, -1, -1), random_grids(200, SIZE, config, seeded()))
    angles = []
    for image in warped:
        row, column = centre_of_mass(image[0])
        assert abs(math.hypot(row - 13.5, column - 13.5) - math.hypot(7.5, 0.5)) < 0.3
        angles.append(math.degrees(math.atan2(column - 13.5, 13.5 - row)))
    assert -31 + 3.8 < min(angles) < -22
    assert 22 < max(angles) < 31 + 3.8


def test_elastic_warp_moves_pixels_as_far_as_asked():
    config = STILL.model_copy(update={"elastic_pixels": 1.0})
    still, moved = (random_grids(200, SIZE, c, seeded()) for c in (STILL, config))
    pixels = (moved - still) * 14
    assert 0.5 < pixels.std() < 1.2
    neighbours = (pixels[:, 1:] - pixels[:, :-1]).abs().mean()
    assert neighbours < 0.3  # smooth: no tearing


def test_what_comes_in_from_outside_is_black():
    config = STILL.model_copy(update={"shift": 1.0})
    warped = warp(torch.ones(50, 1, *SIZE), random_grids(50, SIZE, config, seeded()))
    assert warped.min() == 0
    assert warped.max() <= 1.0001


def test_smooth_noise_is_bicubic_interpolation():
    noise = torch.randn(3, 2, 6, 6, generator=seeded(4))
    expected = torch.nn.functional.interpolate(noise, (28, 20), mode="bicubic", align_corners=True)
    torch.testing.assert_close(smooth_noise(3, 2, (28, 20), 6, seeded(4)), expected)
