"""What in a picture made the answer: attention laid over the pixels, and occlusion.

NumPy alone, so that the service and the evaluation share it. `python -m model.evaluation.evaluate CHECKPOINT
--suite faithfulness` measures both maps.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (C, H, W), light strokes on black
Maps = NDArray[np.float32]  # (..., H, W)

# A patch is as large as two of the byte array's positions, and they overlap by half: of the sizes
# from 3 to 8 the most faithful for what it costs, some 70 images instead of 1.
PATCH = 4
STRIDE = 2


def spread(attention: Maps, size: tuple[int, int]) -> Maps:
    """Lays attention over positions (..., h, w) onto the pixels that they were made from.

    A position of a strided convolution is centred on each `stride`-th pixel; between two the
    weights are interpolated. No detail is added.

    Returns: (..., H, W); each map sums to 1, as the attention does.
    """
    rows, columns = (
        _interpolation(length, positions)
        for length, positions in zip(size, attention.shape[-2:], strict=True)
    )
    maps = rows @ attention @ columns.T
    total: Maps = (maps / maps.sum(axis=(-2, -1), keepdims=True)).astype(np.float32)
    return total


def occlusion(
    image: Pixels,
    label: int,
    log_probabilities: Callable[[NDArray[np.uint8]], NDArray[np.floating]],
) -> Maps:
    """How much of the answer rests on each pixel (Zeiler and Fergus, ECCV 2014, section 4.2).

    Each patch that holds ink is deleted in turn; a pixel gets the mean of what its patches cost.

    Args:
        image: what the model saw.
        label: index of the answer.
        log_probabilities: images (B, C, H, W) -> log-probabilities (B, classes); called once.

    Returns: (H, W) in nats: the fall of the answer's log-probability, negative where the ink speaks
    against the answer, 0 where there is no ink near.
    """
    _, height, width = image.shape
    patches = [
        (..., slice(max(0, top), top + PATCH), slice(max(0, left), left + PATCH))
        for top in range(STRIDE - PATCH, height, STRIDE)
        for left in range(STRIDE - PATCH, width, STRIDE)
    ]
    patches = [patch for patch in patches if image[patch].any()]
    images = np.repeat(image[None], 1 + len(patches), axis=0)
    for occluded, patch in zip(images[1:], patches, strict=True):
        occluded[patch] = 0
    of_label = log_probabilities(images)[:, label]
    costs, covers = np.zeros((height, width)), np.zeros((height, width))
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
