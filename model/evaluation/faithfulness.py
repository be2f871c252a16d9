"""Whether the maps of an explanation tell what the answer rests on.

Ink is deleted in the order of a map, and the answer's probability watched (Samek et al., IEEE
TNNLS 28, 2017): the faster it falls, the more faithful the map. `python -m model.evaluation.evaluate
CHECKPOINT --suite faithfulness`.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.attribution import occlusion, spread

Images = NDArray[np.uint8]  # (N, H, W)
Maps = NDArray[np.float32]  # (N, H, W)
Probabilities = Callable[[Images], NDArray[np.float64]]  # images -> (N, classes)

STEPS = 20


def deletion_curve(
    images: Images, maps: Maps, answers: NDArray[np.int64], probabilities: Probabilities
) -> NDArray[np.float64]:
    """Mean probability of the answers after each twentieth of the ink is gone: (STEPS + 1,).

    A map's highest ink goes first.
    """
    flat = images.reshape(len(images), -1)
    ranks = np.where(flat > 0, maps.reshape(flat.shape), -np.inf).argsort(axis=1)[:, ::-1]
    ink = (flat > 0).sum(axis=1)
    curve = []
    for step in range(STEPS + 1):
        rest = flat.copy()
        for row, order, count in zip(rest, ranks, ink, strict=True):
            row[order[: round(count * step / STEPS)]] = 0
        found = probabilities(rest.reshape(images.shape))
        curve.append(float(found[np.arange(len(answers)), answers].mean()))
    return np.array(curve)


def area(curve: NDArray[np.float64]) -> float:
    """Under a deletion curve, in [0, 1]: the smaller, the more faithful."""
    return float(np.trapezoid(curve, dx=1 / STEPS))


def measure(
    images: Images,
    attention: NDArray[np.float32],
    probabilities: Probabilities,
    seed: int,
) -> Mapping[str, NDArray[np.float64]]:
    """The deletion curve of each map, of ink at random and of the brightest ink.

    Args:
        images: (N, H, W).
        attention: (N, depth, heads, L, *grid), the model's of them.
        probabilities: the model's.
        seed: of the random order.
    """
    random = np.random.default_rng(seed)
    answers: NDArray[np.int64] = probabilities(images).argmax(axis=1)
    height, width = images.shape[1:]

    def of_occlusion(image: Images, answer: int) -> NDArray[np.float32]:
        def log_probabilities(variants: NDArray[np.uint8]) -> NDArray[np.float64]:
            logarithms: NDArray[np.float64] = np.log(probabilities(variants[:, 0]).clip(1e-12))
            return logarithms

        return occlusion(image[None], answer, log_probabilities)

    noise = random.random(images.shape).astype(np.float32)
    maps = {
        "random ink": noise,
        "brightest ink": images + noise,
        "attention": spread(attention.mean(axis=(1, 2, 3)), (height, width)),
        "attribution": np.stack(
            [of_occlusion(i, int(a)) for i, a in zip(images, answers, strict=True)]
        ),
    }
    return {
        name: deletion_curve(images, values, answers, probabilities)
        for name, values in maps.items()
    }
