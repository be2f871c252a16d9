"""Tells what it costs to take candidates for digits, and finds the cheapest way through a line."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.modalities.digits.reading.learned import JUDGE_FILE, Learned
from model.modalities.digits.reading.segment import Candidate, Segmentation


class Judge(Learned):
    """A small network that weighs candidates.

    Its arrays are hidden (features, H), bias (H,), out (H,), out_bias ().
    """

    file = JUDGE_FILE

    def costs(
        self,
        candidates: Sequence[Candidate],
        probabilities: NDArray[np.floating],
        novelty: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        """What taking each candidate for a digit costs (N,).

        A way through a line is the more probable, by e to the difference, the less it costs in all.
        The model's probabilities of the candidates are (N, classes), its novelty (N,).
        """
        if not candidates:
            return np.zeros(0)
        return self.costs_of(evidence(candidates, probabilities, novelty))

    def costs_of(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """The same of candidates with that evidence (N, features)."""
        hidden = np.tanh(features @ self._arrays["hidden"] + self._arrays["bias"])
        scores = hidden @ self._arrays["out"] + self._arrays["out_bias"]
        return -scores.astype(np.float64)


def evidence(
    candidates: Sequence[Candidate],
    probabilities: NDArray[np.floating],
    novelty: NDArray[np.floating],
) -> NDArray[np.float64]:
    """What a judge weighs: how sure the model is, of which class, and the shape; (N, features)."""
    ranked = np.log(np.maximum(np.sort(probabilities, axis=1), 1e-12))
    unlike = novelty.astype(np.float64).clip(1e-4, 1 - 1e-4)
    sureness = np.stack(
        [
            ranked[:, -1].clip(-4),
            (ranked[:, -1] - ranked[:, -2]).clip(0, 8) / 4,
            ranked.std(axis=1) / 4,
            np.log(unlike / (1 - unlike)) / 4,
        ],
        axis=1,
    )
    answer = probabilities.argmax(axis=1)
    classes = np.stack([candidate.impression.classes for candidate in candidates])
    agreement = np.stack(
        [classes[np.arange(len(answer)), answer], classes.max(axis=1)], axis=1
    ).clip(-6)
    shapes = np.array([list(vars(candidate.shape).values()) for candidate in candidates])
    kinds = np.eye(probabilities.shape[1])[answer]
    return np.concatenate([sureness, agreement, kinds, shapes], axis=1)


def cheapest(
    spans: Sequence[tuple[int, int]], skips: Sequence[float], costs: NDArray[np.float64]
) -> list[int]:
    """The cheapest way from the first to the last piece of a line, as candidates' indices.

    A candidate spans pieces from its first to its end, exclusive, at a cost; leaving a piece out
    costs its skip.
    """
    ending: list[list[int]] = [[] for _ in range(len(skips) + 1)]
    for index, (_, stop) in enumerate(spans):
        ending[stop].append(index)
    total, last = [0.0], [-1]
    for stop, skip in enumerate(skips, 1):
        options = [(total[stop - 1] + skip, -1)]
        options += [(total[spans[index][0]] + float(costs[index]), index) for index in ending[stop]]
        cost, index = min(options)
        total.append(cost)
        last.append(index)
    way: list[int] = []
    at = len(skips)
    while at:
        if last[at] >= 0:
            way.append(last[at])
        at = spans[last[at]][0] if last[at] >= 0 else at - 1
    return way[::-1]


def best_ways(found: Segmentation, costs: NDArray[np.float64]) -> list[list[int]]:
    """The cheapest way through each line, by what each candidate costs (N,).

    Returns: per line the indices of the candidates that are digits, left to right; lines
    without any are left out.
    """
    ways = []
    for line, skips in enumerate(found.skips):
        own = [i for i, candidate in enumerate(found.candidates) if candidate.line == line]
        spans = [(found.candidates[i].start, found.candidates[i].stop) for i in own]
        way = cheapest(spans, skips, costs[own])
        if way:
            ways.append([own[index] for index in way])
    return ways
