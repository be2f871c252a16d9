"""Tells what in a sample made the answer: attention laid over the values, and occlusion.

NumPy alone, so that the service and the evaluation share it; for any number of axes. The suite
`faithfulness` measures both maps.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]  # (C, *shape), 0 where there is nothing
Maps = NDArray[np.float32]  # (..., *shape)

# A patch is as large as two of the byte array's positions, and they overlap by half: of the sizes
# from 3 to 8 the most faithful for what it costs, some 70 samples instead of 1.
PATCH = 4
STRIDE = 2


def spread(attention: Maps, shape: tuple[int, ...]) -> Maps:
    """Lays attention over positions (..., *grid) onto the values that they were made from.

    A position of a strided convolution is centred on each `stride`-th value; between two the
    weights are interpolated. No detail is added.

    Returns: (..., *shape); each map sums to 1, as the attention does.
    """
    axes = range(-len(shape), 0)
    maps = attention
    for axis, length in zip(axes, shape, strict=True):
        weights = _interpolation(length, attention.shape[axis])
        maps = np.moveaxis(np.moveaxis(maps, axis, -1) @ weights.T, -1, axis)
    total: Maps = (maps / maps.sum(axis=tuple(axes), keepdims=True)).astype(np.float32)
    return total


def occlusion(
    sample: Values, label: int, log_probabilities: Callable[[NDArray[Any]], NDArray[np.floating]]
) -> Maps:
    """How much of the answer rests on each position (Zeiler and Fergus, ECCV 2014, section 4.2).

    Each patch that is not empty is deleted in turn; a position gets the mean of what its patches
    cost.

    `log_probabilities` takes samples (B, C, *shape) to (B, classes), and is called once.

    Returns: (*shape) in nats: the fall of the answer's log-probability, negative where the patches
    speak against the answer, 0 where there is nothing near.
    """
    shape = sample.shape[1:]
    starts = product(*(range(STRIDE - PATCH, length, STRIDE) for length in shape))
    patches: list[Any] = [
        (..., *(slice(max(0, at), at + PATCH) for at in start)) for start in starts
    ]
    patches = [patch for patch in patches if sample[patch].any()]
    samples = np.repeat(sample[None], 1 + len(patches), axis=0)
    for occluded, patch in zip(samples[1:], patches, strict=True):
        occluded[patch] = 0
    of_label = log_probabilities(samples)[:, label]
    costs, covers = np.zeros(shape), np.zeros(shape)
    for patch, cost in zip(patches, of_label[0] - of_label[1:], strict=True):
        costs[patch] += cost
        covers[patch] += 1
    return (costs / np.maximum(covers, 1)).astype(np.float32)


def _interpolation(length: int, positions: int) -> NDArray[np.float32]:
    """Linear interpolation as a matrix (length, positions)."""
    stride = -(-length // positions)
    at = np.minimum(np.arange(length) / stride, positions - 1)
    weights: NDArray[np.floating] = 1 - np.abs(at[:, None] - np.arange(positions))
    return weights.clip(0).astype(np.float32)
