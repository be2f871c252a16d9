"""Deletion curves tell a map that knows what counts from one that does not."""

import numpy as np

from model.checkpoint.attribution import PATCH, occlusion, spread
from model.evaluation.faithfulness import STEPS, area, deletion_curve, measure

IMAGES = np.full((3, 1, 28, 28), 200, np.uint8)
COUNTS = np.zeros((28, 28), np.float32)
COUNTS[:14, :14] = 1 / 14**2  # the quarter that alone speaks for class 0


def probabilities(images: np.ndarray) -> np.ndarray:
    first = ((images[:, 0] > 0) * COUNTS).sum(axis=(1, 2))
    return np.stack([first, 1 - first], axis=1)


def test_a_faithful_map_has_the_smaller_area():
    answers = np.zeros(3, np.int64)
    maps = np.repeat(COUNTS[None], 3, axis=0)
    best = deletion_curve(IMAGES, maps, answers, probabilities)
    worst = deletion_curve(IMAGES, -maps, answers, probabilities)
    assert len(best) == STEPS + 1
    assert (best[0], best[-1]) == (1, 0)
    assert best[STEPS // 4] == 0, "all that counts went first"
    assert worst[STEPS * 3 // 4] == 1, "and last"
    assert area(best) < 0.2 < 0.8 < area(worst)


def test_occlusion_finds_what_counts():
    def logarithms(images: np.ndarray) -> np.ndarray:
        return np.log(probabilities(images).clip(1e-9))

    found = occlusion(IMAGES[0], 0, logarithms)
    assert found[:12, :12].min() > 0
    np.testing.assert_allclose(found[14 + PATCH :, 14 + PATCH :], 0, atol=1e-6)


def test_attention_is_spread_without_loss():
    attention = np.random.default_rng(0).dirichlet(np.ones(196), 5).reshape(5, 14, 14)
    maps = spread(attention.astype(np.float32), (28, 28))
    assert maps.shape == (5, 28, 28)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-5)
    peaks = maps.reshape(5, -1).argmax(axis=1)
    tops = attention.reshape(5, -1).argmax(axis=1)
    assert [(p // 28 // 2, p % 28 // 2) for p in peaks] == [(t // 14, t % 14) for t in tops]


def test_all_maps_are_measured():
    attention = np.full((3, 1, 1, 1, 14, 14), 1 / 196, np.float32)
    curves = measure(IMAGES, attention, probabilities, seed=0)
    assert list(curves) == ["random ink", "brightest ink", "attention", "attribution"]
    assert area(curves["attribution"]) < area(curves["random ink"]) - 0.2
