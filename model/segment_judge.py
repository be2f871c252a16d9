"""Fits what tells a whole digit from a part of one, or from two: `python -m model.segment_judge`.

Strips of training digits are cut by `model.segment`; which of the candidates are whole digits is
known of strips, and a network of one small hidden layer learns to tell.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from tqdm import trange

from model.checkpoint import read_checkpoint
from model.datasets import LabelledImages, load_mnist
from model.segment import JUDGE_FILE, Piece, Segmentation, evidence, find_marks, segment
from model.strips import STYLES, Strip, any_style, write

# Shares of the ink of a digit that is held, of another digit, and of a candidate that is another's.
WHOLE, OTHER, FOREIGN = 0.75, 0.35, 0.25
HIDDEN = 24
STEPS, LEARNING_RATE, WEIGHT_DECAY = 1500, 1e-2, 1e-3
LONGEST = 7


def training_strip(
    digits: LabelledImages, index: int, random: np.random.Generator, longest: int = LONGEST
) -> Strip:
    """A strip to learn from: of the styles in turn, and as often of any style."""
    styles = list(STYLES.values())
    style = styles[index // 2 % len(styles)] if index % 2 else any_style(random)
    return write(digits, int(random.integers(1, longest + 1)), style, random)


def digits_held(found: Segmentation, strip: Strip) -> NDArray[np.int64]:
    """Which digit of the strip each candidate holds, all of it and next to nothing else.

    Returns: (N,), counted from 1; 0 where it is none, a part of one, or several.
    """
    inks = {piece: _ink(piece, strip) for line in found.pieces for piece in line}
    if not found.candidates:
        return np.zeros(0, np.int64)
    ink = np.array([sum(inks[piece] for piece in c.pieces) for c in found.candidates])
    # A thin 1 beside an 8 is little ink, but all of a digit.
    shares = np.sort(np.pad(ink / np.maximum(1, sum(inks.values())), ((0, 0), (1, 0))), axis=1)
    foreign = 1 - ink.max(axis=1) / np.maximum(1, ink.sum(axis=1))
    whole = (shares[:, -1] > WHOLE) & (shares[:, -2] < OTHER) & (foreign < FOREIGN)
    held: NDArray[np.int64] = np.where(whole, ink.argmax(axis=1) + 1, 0)
    return held


def _ink(piece: Piece, strip: Strip) -> NDArray[np.int64]:
    """Its pixels by the digit that they belong to, (digits,)."""
    width, height = strip.picture.size
    down, across = np.nonzero(piece.coverage > 127)
    rows = (down + piece.box[0] - 1).clip(0, height - 1)
    columns = (across + piece.box[2] - 1).clip(0, width - 1)
    owners = strip.owner[rows, columns]
    return np.bincount(owners, minlength=len(strip.text) + 1)[1:]


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
    for index in trange(options.strips, mininterval=5):
        strip = training_strip(digits, index, random)
        found = segment(find_marks(strip.picture, strip.picture.size), card.preprocessing)
        candidates = found.candidates
        if not candidates:
            continue
        images = np.stack([candidate.pixels for candidate in candidates])
        logits, novelty = session.run(["logits", "novelty"], {"images": images})
        probabilities = card.calibration.probabilities(logits)
        features.append(evidence(candidates, probabilities, novelty))
        targets.append(digits_held(found, strip) > 0)
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
