"""What a run looked like, as PNG files in memory."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.checkpoint.history import Epoch
from model.data.labelled import Labelled

matplotlib.use("Agg")

Picture = NDArray[np.uint8]  # (H, W), or (H, W, 3)


def training_curves(history: Sequence[Epoch]) -> bytes:
    """Accuracy and loss over the epochs, of training (augmented) and validation."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [entry.epoch for entry in history]
    left.plot(epochs, [100 * e.train_accuracy for e in history], label="training (augmented)")
    left.plot(epochs, [100 * e.validation_accuracy for e in history], label="validation (averaged)")
    left.set(title="Accuracy", xlabel="epoch", ylabel="%")
    right.plot(epochs, [e.train_loss for e in history], label="training (smoothed labels)")
    right.plot(epochs, [e.validation_loss for e in history], label="validation")
    right.set(title="Loss", xlabel="epoch", ylabel="nats", yscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    return _png(figure)


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], class_names: Sequence[str]
) -> bytes:
    """Counts of (true class, predicted class); the colour shows the misread ones alone."""
    classes = len(class_names)
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    misread = np.where(np.eye(classes, dtype=bool), 0, counts)
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(misread, cmap="Reds")
    axes.set(title="Confusion matrix", xlabel="predicted", ylabel="true")
    axes.set_xticks(range(classes), class_names)
    axes.set_yticks(range(classes), class_names)
    for (row, column), count in np.ndenumerate(counts):
        dark = misread[row, column] > 0.6 * misread.max() > 0
        axes.text(
            column, row, str(count), ha="center", va="center", color="white" if dark else "black"
        )
    return _png(figure)


def misread_samples(
    samples: Labelled,
    probabilities: NDArray[np.float64],
    class_names: Sequence[str],
    picture: Callable[[NDArray[Any]], Picture],
    most: int = 24,
) -> bytes:
    """The samples whose true class got the least probability (N, classes), worst first.

    At most `most` of them are shown; `picture` shows a sample (C, *shape).
    """
    labels, predicted = samples.labels, probabilities.argmax(axis=1)
    of_truth = probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[of_truth[wrong].argsort()][:most]
    rows = max(1, -(-len(worst) // 8))
    figure = Figure(figsize=(10, 1.6 * rows + 0.5), layout="constrained")
    figure.suptitle(f"Worst of {len(wrong)} misread: true → read (confidence)")
    for axes in figure.subplots(rows, 8, squeeze=False).flat:
        axes.axis("off")
    for axes, index in zip(figure.axes, worst, strict=False):
        axes.imshow(picture(samples.inputs[index]), cmap="gray")
        axes.set_title(
            f"{class_names[labels[index]]} → {class_names[predicted[index]]} "
            f"({probabilities[index].max():.0%})",
            fontsize=9,
        )
    return _png(figure)


def reliability_diagram(
    confidence: NDArray[np.float64], accuracy: NDArray[np.float64], samples: NDArray[np.int64]
) -> bytes:
    """Accuracy against confidence in bins (bins,).

    The bars are one binomial standard error of each bin's accuracy, at least one sample wide.
    """
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    error = np.maximum(np.sqrt(accuracy * (1 - accuracy) / samples), 1 / samples)
    axes.errorbar(confidence, accuracy, yerr=error, fmt="o", capsize=3, label="bins of equal mass")
    low = min(confidence.min(), (accuracy - error).min()) - 0.005
    axes.plot([low, 1], [low, 1], color="grey", linestyle="--", label="calibrated")
    axes.set(
        title="Reliability on the test set",
        xlabel="mean confidence of a bin",
        ylabel="accuracy of a bin",
        xlim=(low, 1.002),
        ylim=(low, 1.002 + error.max()),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def attention_maps(picture: Picture, attention: NDArray[np.float32]) -> bytes:
    """Where a model looked: a row per block with the picture, the mean, and its sharpest latents.

    Attention (depth, heads, L, rows, columns) is drawn over the whole picture.
    """
    depth, shown = len(attention), 7
    edges = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
    figure = Figure(figsize=(1.5 * (shown + 2), 1.6 * depth), layout="constrained")
    grid = figure.subplots(depth, shown + 2, squeeze=False)
    for block, row in enumerate(grid):
        maps = attention[block].reshape(-1, *attention.shape[3:])
        sharpest = maps.reshape(len(maps), -1).max(axis=1).argsort()[::-1][:shown]
        row[0].imshow(picture, cmap="gray")
        row[0].set_ylabel(f"block {block + 1}")
        for axes, weights in zip(row[1:], [maps.mean(axis=0), *maps[sharpest]], strict=False):
            axes.imshow(picture, cmap="gray", alpha=0.35)
            axes.imshow(weights, cmap="inferno", alpha=0.75, extent=edges)
    grid[0][0].set_title("input")
    grid[0][1].set_title("mean of all")
    grid[0][2].set_title("sharpest latents", loc="left")
    for axes in figure.axes:
        axes.set_xticks([])
        axes.set_yticks([])
    return _png(figure)


def deletion_curves(curves: Mapping[str, NDArray[np.float64]]) -> bytes:
    """The answers' mean probability as ink is deleted, by what decides which goes first."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(np.linspace(0, 100, len(curve)), curve, label=name)
    axes.set(title="Ink deleted", xlabel="% of the ink", ylabel="probability of the answer")
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
