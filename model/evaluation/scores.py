"""Figures of a classifier on labelled samples: accuracy, likelihood, calibration."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.calibration import Calibration
from model.checkpoint.card import ClassFigures, Evaluation

Logits = NDArray[np.float32]  # (N, classes)

CALIBRATION_BINS = 15

# How far a figure measured on other hardware may be from the card's: rounding moves a borderline
# sample in ten thousand, and likelihoods in the fourth decimal.
CLAIM_TOLERANCE = {"accuracy": 2e-4, "nll": 1e-3, "ece": 1e-3}


def negative_log_likelihood(
    calibration: Calibration, logits: Logits, labels: NDArray[np.int64]
) -> float:
    """Mean over the samples, in nats."""
    chosen = calibration.log_probabilities(logits)[np.arange(len(labels)), labels]
    return max(0.0, -float(chosen.mean()))


def calibration_bins(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean confidence, accuracy and number of samples in up to 15 bins of equal mass (bins,)."""
    bins = np.array_split(confidences.argsort(kind="stable"), CALIBRATION_BINS)
    filled = [chosen for chosen in bins if len(chosen)]
    return (
        np.array([confidences[chosen].mean() for chosen in filled]),
        np.array([correct[chosen].mean() for chosen in filled]),
        np.array([len(chosen) for chosen in filled]),
    )


def expected_calibration_error(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_]
) -> float:
    """Gap between confidence and accuracy over equal-mass bins (Nguyen & O'Connor, EMNLP 2015)."""
    confidence, accuracy, samples = calibration_bins(confidences, correct)
    return float((np.abs(confidence - accuracy) * samples).sum() / samples.sum())


def score(
    logits: Logits, labels: NDArray[np.int64], class_names: Sequence[str], calibration: Calibration
) -> Evaluation:
    """All figures of one part of a data set; logits (N, classes), labels (N,)."""
    predicted = logits.argmax(axis=1)
    correct = predicted == labels
    confidences = calibration.probabilities(logits).max(axis=1)
    classes = range(len(class_names))
    return Evaluation(
        n=len(labels),
        errors=int((~correct).sum()),
        accuracy=float(correct.mean()),
        nll=negative_log_likelihood(calibration, logits, labels),
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
        f"samples   {evaluation.n:>8,}",
        f"errors    {evaluation.errors:>8,}",
        f"accuracy  {evaluation.accuracy:>8.2%}",
        f"NLL       {evaluation.nll:>8.4f} nats",
        f"ECE       {evaluation.ece:>8.4f}",
        "",
        "class     samples   recall  precision",
    ]
    lines += [
        f"{figures.label:<9} {figures.n:>7,} {figures.recall:>8.2%} {figures.precision:>10.2%}"
        for figures in evaluation.per_class
    ]
    return "\n".join(lines)


def broken_claims(measured: Evaluation, claimed: Evaluation) -> list[str]:
    """A sentence for each figure of the card that the measurement does not bear out."""
    if measured.n != claimed.n:
        return [f"the card's figures are of {claimed.n:,} samples, these of {measured.n:,}"]
    return [
        f"the card claims {name} {getattr(claimed, name):.5f}, "
        f"measured {getattr(measured, name):.5f}"
        for name, tolerance in CLAIM_TOLERANCE.items()
        if abs(getattr(measured, name) - getattr(claimed, name)) > tolerance
    ]
