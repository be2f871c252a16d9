"""Fits what tells a whole digit from a part of one, or from two: `python -m model.segment_judge`.

Strips of training digits are cut by `model.segment`; which of the candidates are whole digits is
known of strips, and a network of one small hidden layer learns to tell.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from tqdm import trange

from model.checkpoint import read_checkpoint
from model.datasets import load_mnist
from model.segment import JUDGE_FILE, Candidate, evidence, find_marks, segment
from model.strips import STYLES, Strip, write

HIDDEN = 24
STEPS, LEARNING_RATE, WEIGHT_DECAY = 1500, 1e-2, 1e-3
LONGEST = 7
# Touching digits are what is to be learned.
TRAINING_STYLES = (
    *STYLES.values(),
    STYLES["touching"],
    STYLES["touching"],
    STYLES["all at once"],
    replace(STYLES["slanted"], gap=(-2.0, 2.0)),
)


def digits_held(candidates: Sequence[Candidate], strip: Strip) -> NDArray[np.int64]:
    """Which digit of the strip each candidate holds, all of it and next to nothing else.

    Returns: (N,), counted from 1; 0 where it is none, a part of one, or several.
    """
    height, width = strip.owner.shape
    ink = np.zeros((len(candidates), len(strip.text) + 1))
    for row, candidate in zip(ink, candidates, strict=True):
        for piece in candidate.pieces:
            down, across = np.nonzero(piece.coverage > 127)
            rows = (down + piece.box[0] - 1).clip(0, height - 1)
            columns = (across + piece.box[2] - 1).clip(0, width - 1)
            row += np.bincount(strip.owner[rows, columns], minlength=len(row))
    ink = ink[:, 1:]
    most = ink.max(axis=1)
    share = (ink / np.maximum(1, ink.max(axis=0, initial=0))).max(axis=1)
    whole = (share > 0.85) & (ink.sum(axis=1) - most < 0.12 * ink.sum(axis=1))
    held: NDArray[np.int64] = np.where(whole, ink.argmax(axis=1) + 1, 0)
    return held


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m model.segment_judge", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("weights/perceiver-mnist"))
    parser.add_argument("--data", type=Path, help="folder of MNIST's IDX files; else downloaded")
    parser.add_argument("--strips", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    checkpoint = read_checkpoint(options.checkpoint)
    card = checkpoint.card
    session = onnxruntime.InferenceSession(checkpoint.onnx, providers=["CPUExecutionProvider"])
    digits = load_mnist(options.data).train
    random = np.random.default_rng(options.seed)
    features, targets = [], []
    for index in trange(options.strips):
        style = TRAINING_STYLES[index % len(TRAINING_STYLES)]
        strip = write(digits, int(random.integers(1, LONGEST + 1)), style, random)
        marks = find_marks(strip.picture, strip.picture.size)
        # As in use: some marks are cut, by chance some that need not be.
        narrow = random.uniform(0.4, 1.0)
        cut = {
            mark
            for line in marks.lines
            for mark in line.marks
            if mark.box[3] - mark.box[2] > narrow * line.height
        }
        candidates = segment(marks, card.preprocessing, cut).candidates
        if not candidates:
            continue
        images = np.stack([candidate.pixels for candidate in candidates])
        logits, novelty = session.run(["logits", "novelty"], {"images": images})
        probabilities = card.calibration.probabilities(logits)
        features.append(evidence(candidates, probabilities, novelty))
        targets.append(digits_held(candidates, strip) > 0)
    fitted, error = fit(np.concatenate(features), np.concatenate(targets), options.seed)
    # NumPy's stub takes the names for its flag.
    np.savez(JUDGE_FILE, **fitted)  # type: ignore[arg-type]
    print(f"{error:.2%} of held-out candidates misjudged -> {JUDGE_FILE}")
    return 0


def fit(
    features: NDArray[np.float64], targets: NDArray[np.bool_], seed: int
) -> tuple[dict[str, NDArray[np.float32]], float]:
    """The network's arrays, and its share of errors on the last fifth, which it does not see."""
    torch.manual_seed(seed)
    inputs = torch.tensor(features, dtype=torch.float32)
    labels = torch.tensor(targets, dtype=torch.float32)
    kept = len(labels) * 4 // 5
    mean, deviation = inputs[:kept].mean(dim=0), inputs[:kept].std(dim=0).clamp(min=1e-3)
    inputs = (inputs - mean) / deviation
    first, last = nn.Linear(inputs.shape[1], HIDDEN), nn.Linear(HIDDEN, 1)
    network = nn.Sequential(first, nn.Tanh(), last)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        batch = torch.randint(kept, (4096,))
        loss = F.binary_cross_entropy_with_logits(network(inputs[batch])[:, 0], labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        wrong = (network(inputs[kept:])[:, 0] > 0) != (labels[kept:] > 0.5)
    hidden = first.weight.T / deviation[:, None]  # the normalisation folded in
    arrays = {
        "hidden": hidden,
        "bias": first.bias - mean @ hidden,
        "out": last.weight[0],
        "out_bias": last.bias[0],
    }
    return {name: a.detach().numpy() for name, a in arrays.items()}, float(wrong.float().mean())


if __name__ == "__main__":
    sys.exit(main())
