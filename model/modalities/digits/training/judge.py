"""Fits what tells the right way through a line's pieces.

Strips of training digits are cut into candidates; which of them are whole digits is known. A
network of one small hidden layer learns to score them so that the right way is more probable than
all others together: a conditional random field over segments (Sarawagi and Cohen, NIPS 2004).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import trange

from model.evaluation.suite import Subject
from model.modalities.digits.reading.extents import ExtentNetwork
from model.modalities.digits.reading.judge import Judge, cheapest, evidence
from model.modalities.digits.reading.marks import find_marks
from model.modalities.digits.reading.segment import Segmentation, segment
from model.modalities.digits.synthetic.strips import training_strip
from model.modalities.digits.training.strip_labels import digits_held

HIDDEN = 24
STEPS, LEARNING_RATE, WEIGHT_DECAY = 600, 1e-2, 1e-2
WHOLENESS = 0.2  # weight of telling whole digits from others, beside telling the right way
MOST_SKIPPED = 10.0  # of a way that is right
HELD_OUT = 10  # one lesson of so many
IMPOSSIBLE = -1e4

Features = NDArray[np.float64]  # (candidates, features)
Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Lesson:
    """A line of pieces, and the right way through them."""

    features: NDArray[np.float32]  # (candidates, features)
    held: NDArray[np.bool_]  # (candidates,): whether each is one whole digit
    spans: list[tuple[int, int]]  # of each candidate: first piece, end
    skips: tuple[float, ...]  # of each piece
    way: list[int]  # the candidates that are the number, left to right
    skipped: float  # what the pieces beside them cost


def lesson(found: Segmentation, held: NDArray[np.int64], features: Features) -> Lesson | None:
    """What a strip teaches; nothing where its pieces can't be put together to its digits.

    What candidates hold is by `digits_held`, their features by `evidence`.
    """
    if len(found.pieces) != 1 or not len(held):
        return None
    (skips,) = found.skips
    spans = [(candidate.start, candidate.stop) for candidate in found.candidates]
    # By the pieces and the digits that are behind: cost, way.
    best: dict[tuple[int, int], tuple[float, list[int]]] = {(0, 0): (0.0, [])}
    digits = int(held.max())
    for stop, skip in enumerate(skips, 1):
        for digit in range(digits + 1):
            options = []
            if (stop - 1, digit) in best:
                cost, way = best[stop - 1, digit]
                options.append((cost + skip, way))
            for index, (start, end) in enumerate(spans):
                if end == stop and held[index] == digit > 0 and (start, digit - 1) in best:
                    cost, way = best[start, digit - 1]
                    options.append((cost, [*way, index]))
            if options:
                best[stop, digit] = min(options)
    cost, way = best.get((len(skips), digits), (np.inf, []))
    if cost > MOST_SKIPPED:
        return None
    return Lesson(features.astype(np.float32), held > 0, spans, skips, way, cost)


def fit_judge(
    subject: Subject, network: ExtentNetwork, strips: int, seed: int
) -> tuple[Arrays, float]:
    """Makes strips of training digits, has the model read them, and fits the judge to most of them.

    Returns: its arrays, and the share of held-out lines that it parts right.
    """
    spec, digits = subject.card.input, subject.dataset.train
    random = np.random.default_rng(seed)
    made, findings = [], []
    for index in trange(strips, mininterval=5):
        strip = training_strip(digits, index, random)
        found = segment(find_marks(strip.picture, strip.picture.size), spec, network)
        if found.candidates:
            made.append(strip)
            findings.append(found)
    candidates = [candidate for found in findings for candidate in found.candidates]
    logits, novelty = subject.predict(np.stack([c.pixels for c in candidates]))
    probabilities = subject.card.calibration.probabilities(logits)
    features = evidence(candidates, probabilities, novelty)
    ends = np.cumsum([len(found.candidates) for found in findings])
    lessons = [
        lesson(found, digits_held(found, strip), part)
        for strip, found, part in zip(made, findings, np.split(features, ends[:-1]), strict=True)
    ]
    kept = [known for known in lessons if known is not None]
    held_out = len(kept) // HELD_OUT
    fitted = fit(kept[held_out:], seed)
    judge = Judge(fitted)
    right = [
        cheapest(known.spans, known.skips, judge.costs_of(known.features)) == known.way
        for known in kept[:held_out]
    ]
    return fitted, float(np.mean(right))


def fit(lessons: Sequence[Lesson], seed: int) -> Arrays:
    """The network's arrays."""
    torch.manual_seed(seed)
    inputs = torch.tensor(np.concatenate([known.features for known in lessons]))
    held = torch.tensor(np.concatenate([known.held for known in lessons])).float()
    mean, deviation = inputs.mean(dim=0), inputs.std(dim=0).clamp(min=1e-3)
    inputs = (inputs - mean) / deviation
    first, last = nn.Linear(inputs.shape[1], HIDDEN), nn.Linear(HIDDEN, 1)
    network = nn.Sequential(first, nn.Tanh(), last)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    ways = Ways(lessons)
    for _ in trange(STEPS, mininterval=5):
        scores = network(inputs)[:, 0]
        whole = F.binary_cross_entropy_with_logits(scores, held)
        loss = ways.improbability(scores) + WHOLENESS * whole
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    hidden = first.weight.T / deviation[:, None]  # the normalisation folded in
    arrays = {
        "hidden": hidden,
        "bias": first.bias - mean @ hidden,
        "out": last.weight[0],
        "out_bias": last.bias[0],
    }
    return {name: array.detach().numpy() for name, array in arrays.items()}


class Ways:
    """All ways through lines, by arrays padded to the longest line and the widest candidate."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        pieces = max(len(known.skips) for known in lessons)
        widest = max(stop - start for known in lessons for start, stop in known.spans)
        total = sum(len(known.spans) for known in lessons)
        self.candidates = np.full((len(lessons), pieces, widest), total)  # total: there is none
        self.skips = np.zeros((len(lessons), pieces), np.float32)
        own, owners = [], []
        first = 0
        for line, known in enumerate(lessons):
            for index, (start, stop) in enumerate(known.spans):
                self.candidates[line, start, stop - start - 1] = first + index
            self.skips[line, : len(known.skips)] = known.skips
            own += [first + index for index in known.way]
            owners += [line] * len(known.way)
            first += len(known.spans)
        self.own, self.owners = torch.tensor(own), torch.tensor(owners)
        self.stops = torch.tensor([len(known.skips) for known in lessons])
        self.skipped = torch.tensor([known.skipped for known in lessons])

    def improbability(self, scores: Tensor) -> Tensor:
        """Mean of -ln P(the right way), by the candidates' scores of all lines (N,)."""
        number, pieces, widest = self.candidates.shape
        padded = torch.cat([scores, scores.new_full((1,), IMPOSSIBLE)])[self.candidates]
        skips = torch.from_numpy(self.skips)
        reached = [torch.zeros(number)]  # ln of the sum over all ways up to each piece
        for stop in range(1, pieces + 1):
            options = [reached[stop - 1] - skips[:, stop - 1]]
            options += [
                reached[stop - length] + padded[:, stop - length, length - 1]
                for length in range(1, min(stop, widest) + 1)
            ]
            reached.append(torch.stack(options).logsumexp(dim=0))
        every = torch.stack(reached, dim=1)[torch.arange(number), self.stops]
        right = torch.zeros(number).index_add(0, self.owners, scores[self.own]) - self.skipped
        return (every - right).mean()
