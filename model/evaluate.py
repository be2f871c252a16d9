"""Figures of a checkpoint: `python -m model.evaluate weights/perceiver-mnist --data FOLDER`.

Prints accuracy, negative log-likelihood, calibration error and per-class figures on the test set,
stores them as JSON, and compares them with what the checkpoint's card claims.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from model.checkpoint import (
    CheckpointError,
    ClassFigures,
    Evaluation,
    load_perceiver,
    read_checkpoint,
)
from model.datasets import DatasetError, load_mnist, split
from model.device import DeviceError, find_device
from model.export import PixelClassifier
from model.suites import SUITES, Subject

Logits = NDArray[np.float32]  # (N, classes)

CALIBRATION_BINS = 15
# How far a figure measured on other hardware may be from the card's: rounding moves a borderline
# image in ten thousand, and likelihoods in the fourth decimal.
CLAIM_TOLERANCE = {"accuracy": 2e-4, "nll": 1e-3, "ece": 1e-3}


def predict_logits(
    classifier: PixelClassifier, images: NDArray[np.uint8], batch_size: int = 500
) -> Logits:
    """Images (N, H, W) uint8 -> logits (N, classes), on the classifier's device."""
    device = next(classifier.parameters()).device
    with torch.inference_mode():
        batches = [
            classifier(batch[:, None].to(device)).float().cpu()
            for batch in torch.tensor(images).split(batch_size)
        ]
    return torch.cat(batches).numpy()


def fit_temperature(logits: Logits, labels: NDArray[np.int64]) -> float:
    """The temperature of least negative log-likelihood (Guo et al., ICML 2017), in [0.05, 20]."""

    def nll(log_temperature: float) -> float:
        return negative_log_likelihood(logits / np.exp(log_temperature), labels)

    bounds = (float(np.log(0.05)), float(np.log(20)))
    return float(np.exp(minimize_scalar(nll, bounds=bounds, method="bounded").x))


def negative_log_likelihood(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Mean over the images, in nats."""
    chosen = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return max(0.0, -float(chosen.mean()))


def expected_calibration_error(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_]
) -> float:
    """Gap between confidence and accuracy over equal-width bins (Naeini et al., AAAI 2015)."""
    bins = np.minimum((confidences * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidences, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(correct))


def score(
    logits: Logits, labels: NDArray[np.int64], class_names: Sequence[str], temperature: float
) -> Evaluation:
    """All figures of one part of a data set; logits (N, classes), labels (N,)."""
    scaled = logits.astype(np.float64) / temperature
    predicted = scaled.argmax(axis=1)
    correct = predicted == labels
    confidences = np.exp(log_softmax(scaled, axis=1)).max(axis=1)
    classes = range(len(class_names))
    return Evaluation(
        n=len(labels),
        errors=int((~correct).sum()),
        accuracy=float(correct.mean()),
        nll=negative_log_likelihood(scaled, labels),
        ece=expected_calibration_error(confidences, correct),
        per_class=tuple(
            ClassFigures(
                label=class_names[c],
                n=int((labels == c).sum()),
                recall=float(correct[labels == c].mean()) if (labels == c).any() else 0.0,
                precision=float(correct[predicted == c].mean()) if (predicted == c).any() else 0.0,
            )
            for c in classes
        ),
    )


def table(evaluation: Evaluation) -> str:
    """The figures as text for a terminal."""
    lines = [
        f"images    {evaluation.n:>8,}",
        f"errors    {evaluation.errors:>8,}",
        f"accuracy  {evaluation.accuracy:>8.2%}",
        f"NLL       {evaluation.nll:>8.4f} nats",
        f"ECE       {evaluation.ece:>8.4f}",
        "",
        "class      images   recall  precision",
    ]
    lines += [
        f"{figures.label:<9} {figures.n:>7,} {figures.recall:>8.2%} {figures.precision:>10.2%}"
        for figures in evaluation.per_class
    ]
    return "\n".join(lines)


def broken_claims(measured: Evaluation, claimed: Evaluation) -> list[str]:
    """A sentence for each figure of the card that the measurement does not bear out."""
    if measured.n != claimed.n:
        return [f"the card's figures are of {claimed.n:,} images, these of {measured.n:,}"]
    return [
        f"the card claims {name} {getattr(claimed, name):.5f}, "
        f"measured {getattr(measured, name):.5f}"
        for name, tolerance in CLAIM_TOLERANCE.items()
        if abs(getattr(measured, name) - getattr(claimed, name)) > tolerance
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 1 where the card's claims do not hold, 2 where nothing could run."""
    parser = argparse.ArgumentParser(prog="perceiver evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("--data", type=Path, help="folder of MNIST's IDX files; else downloaded")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--suite", choices=SUITES, help="figures beyond the test set's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--out", type=Path, help="JSON file; default runs/evaluation-NAME-PART.json, or -SUITE"
    )
    options = parser.parse_args(argv)
    try:
        checkpoint = read_checkpoint(options.checkpoint)
        perceiver = load_perceiver(checkpoint)
        mnist = load_mnist(options.data)
        classifier = PixelClassifier(perceiver, checkpoint.card.preprocessing).to(
            find_device(options.device)
        )
    except (CheckpointError, DatasetError, DeviceError) as error:
        print(f"perceiver evaluate: {error}", file=sys.stderr)
        return 2
    classifier.eval()
    card = checkpoint.card
    out = options.out or Path(f"runs/evaluation-{card.name}-{options.suite or options.part}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    if options.suite:
        report = SUITES[options.suite](
            Subject(card, classifier, partial(predict_logits, classifier), mnist)
        )
        out.write_text(json.dumps(report.figures, indent=2) + "\n")
        print(f"{card.name} {card.version}, {options.suite}\n\n{report.table}\n\n-> {out}")
        return 0
    recipe = card.training.recipe
    part = mnist.test
    if options.part == "validation":
        part = split(mnist.train, recipe.validation_images, recipe.seed)[1]
    logits = predict_logits(classifier, part.images)
    measured = score(logits, part.labels, card.labels, card.temperature)

    out.write_text(measured.model_dump_json(indent=2) + "\n")
    print(
        f"{card.name} {card.version}, {mnist.name} {options.part}\n\n{table(measured)}\n\n-> {out}"
    )
    if options.part not in card.metrics:
        print(f"The card claims nothing of {options.part}.")
        return 0
    broken = broken_claims(measured, card.metrics[options.part])
    print("\n".join(broken) if broken else "The card's claims hold.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
