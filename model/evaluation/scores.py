"""Figures of a classifier on labelled samples: accuracy, likelihood, calibration."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from torch import nn

from model.checkpoint.calibration import Calibration
from model.checkpoint.card import ClassFigures, Evaluation
from model.network.recognizer import PixelClassifier, Recognizer

Logits = NDArray[np.float32]  # (N, classes)


CALIBRATION_BINS = 15


# How far a figure measured on other hardware may be from the card's: rounding moves a borderline
# image in ten thousand, and likelihoods in the fourth decimal.
CLAIM_TOLERANCE = {"accuracy": 2e-4, "nll": 1e-3, "ece": 1e-3}


def predict_logits(classifier: PixelClassifier, images: NDArray[np.uint8]) -> Logits:
    """Images (N, H, W) uint8 -> logits (N, classes), on the classifier's device."""
    return _in_batches(classifier, images, lambda batch: (classifier(batch),))[0]


def predict(
    recognizer: Recognizer, images: NDArray[np.uint8]
) -> tuple[Logits, NDArray[np.float32]]:
    """Images (N, H, W) uint8 -> logits (N, classes), novelty (N,), on the recognizer's device."""
    logits, novelty = _in_batches(recognizer, images, recognizer)
    return logits, novelty


def summarise(classifier: PixelClassifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images (N, H, W) uint8 -> mean over the latents after each block (N, depth, D)."""
    return _in_batches(classifier, images, lambda batch: (classifier.summaries(batch),))[0]


def _in_batches(
    module: nn.Module,
    images: NDArray[np.uint8],
    compute: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
    batch_size: int = 500,
) -> list[NDArray[np.float32]]:
    device = next(module.parameters()).device
    with torch.inference_mode():
        parts = [
            [output.float().cpu() for output in compute(batch[:, None].to(device))]
            for batch in torch.tensor(images).split(batch_size)
        ]
    return [torch.cat(outputs).numpy() for outputs in zip(*parts, strict=True)]


def fit_calibration(logits: Logits, labels: NDArray[np.int64]) -> Calibration:
    """The calibration of least negative log-likelihood; temperature and sharpness in [0.05, 20]."""

    def at(logarithms: NDArray[np.float64]) -> Calibration:
        temperature, sharpness = np.exp(logarithms)
        return Calibration(temperature=temperature, sharpness=sharpness)

    def nll(logarithms: NDArray[np.float64]) -> float:
        return negative_log_likelihood(at(logarithms), logits, labels)

    limit = float(np.log(20))
    bounds = Bounds([-limit] * 2, [limit] * 2)
    return at(minimize(nll, x0=np.zeros(2), method="Nelder-Mead", bounds=bounds).x)


def negative_log_likelihood(
    calibration: Calibration, logits: Logits, labels: NDArray[np.int64]
) -> float:
    """Mean over the images, in nats."""
    chosen = calibration.log_probabilities(logits)[np.arange(len(labels)), labels]
    return max(0.0, -float(chosen.mean()))


def calibration_bins(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean confidence, accuracy and number of images in up to 15 bins of equal mass (bins,)."""
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
    confidence, accuracy, images = calibration_bins(confidences, correct)
    return float((np.abs(confidence - accuracy) * images).sum() / images.sum())


def score(
    logits: Logits,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    calibration: Calibration,
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
