"""Suites beyond the test set: `python -m model.evaluate CHECKPOINT --suite NAME`.

A suite takes a checkpoint and MNIST, and gives its figures with the table that shows them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model import cnn, robustness
from model.checkpoint import Card
from model.datasets import MNIST
from model.export import PixelClassifier
from model.preprocess import load_upright, prepare
from model.uploads import MIXED, NUISANCES, make_uploads

SEED = 0
UPLOADS_EACH = 300
UPLOADS_MIXED = 1000


@dataclass(frozen=True)
class Subject:
    """What is measured, and on what."""

    card: Card
    classifier: PixelClassifier
    logits: Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # (N, H, W) -> (N, classes)
    mnist: MNIST

    def read(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Images (N, H, W) in the model's form -> the most probable classes (N,)."""
        classes: NDArray[np.int64] = self.logits(images).argmax(axis=1)
        return classes

    def read_files(self, files: Iterable[bytes]) -> NDArray[np.int64]:
        """Image files, each prepared as the service would -> the most probable classes (N,)."""
        prepared = [self.prepare_file(content)[0] for content in files]
        return self.read(np.stack(prepared))

    def prepare_file(self, content: bytes) -> NDArray[np.uint8]:
        """An image file -> the model's input (C, H, W)."""
        picture = load_upright(Image.open(BytesIO(content)))
        return prepare(picture, self.card.preprocessing)


@dataclass(frozen=True)
class Report:
    """A suite's result."""

    table: str  # for a terminal
    figures: dict[str, Any]  # for JSON


Suite = Callable[[Subject], Report]


def corruptions(subject: Subject) -> Report:
    """MNIST's test images under the fifteen corruptions, beside a plain CNN's where one is kept.

    `python -m model.cnn` trains that one.
    """
    readers: dict[str, robustness.Reader] = {subject.card.name: subject.read}
    plain = cnn.load(cnn.DEFAULT_FOLDER)
    if plain is not None:
        readers["plain CNN"] = lambda images: cnn.read(plain, images)
    measured = dict(robustness.accuracies(readers, subject.mnist.test, subject.card.preprocessing))
    figures = {
        name: {who: vars(accuracy) for who, accuracy in row.items()}
        for name, row in measured.items()
    }
    return Report(robustness.table(measured), figures)


def digits8x8(subject: Subject) -> Report:
    """scikit-learn's 1,797 digits of 43 writers, 8x8 pixels of 17 shades, uploaded as PNGs."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    labels: NDArray[np.int64] = bundled.target
    right = subject.read_files(map(_png, (bundled.images * (255 / 16)).round())) == labels
    figures = {"n": len(labels), "accuracy": float(right.mean())}
    lines = [f"{'digit':<8}{'n':>7}{'accuracy':>11}"]
    for digit in range(10):
        chosen = right[labels == digit]
        lines.append(f"{digit:<8}{len(chosen):>7,}{chosen.mean():>11.2%}")
    lines.append(f"{'all':<8}{len(right):>7,}{right.mean():>11.2%}")
    return Report("\n".join(lines), figures)


def uploads(subject: Subject) -> Report:
    """Test digits as users' pictures, nuisance by nuisance, each of other digits."""
    random = np.random.default_rng(SEED)
    figures: dict[str, Any] = {}
    lines = [f"{'nuisance':<24}{'n':>6}{'accuracy':>11}"]
    for name in (*NUISANCES, MIXED):
        count = UPLOADS_MIXED if name == MIXED else UPLOADS_EACH
        chosen = subject.mnist.test.take(random.permutation(len(subject.mnist.test))[:count])
        files = make_uploads(chosen.images, name, SEED)
        accuracy = float((subject.read_files(files) == chosen.labels).mean())
        figures[name] = {"n": count, "accuracy": accuracy}
        lines.append(f"{name:<24}{count:>6,}{accuracy:>11.2%}")
    return Report("\n".join(lines), figures)


def _png(pixels: NDArray[np.floating]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


SUITES: dict[str, Suite] = {
    "corruptions": corruptions,
    "digits8x8": digits8x8,
    "uploads": uploads,
}
