"""Suites of digits beyond the test set; each gives its figures with the table that shows them."""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import mannwhitneyu

from model.errors import UserError
from model.evaluation.suite import Report, Subject, Suite
from model.modalities import Limits
from model.modalities.digits import robustness
from model.modalities.digits.form import prepare_file
from model.modalities.digits.reading.finder import DigitFinder
from model.modalities.digits.synthetic import unlike_held_out
from model.modalities.digits.synthetic.strips import STYLES, write
from model.modalities.digits.synthetic.unlike import draw, picture_of
from model.modalities.digits.synthetic.user_pictures import MIXED, NUISANCES, user_pictures

SEED = 0
UPLOADS_EACH = 300
UPLOADS_MIXED = 1000

STRIPS = 100  # of each style and length
LONGEST_STRIP = 10

UNLIKE_EACH = 500


def corruptions(subject: Subject) -> Report:
    """MNIST's test images under the fifteen corruptions of MNIST-C."""
    readers = {subject.card.name: subject.read}
    measured = dict(robustness.accuracies(readers, subject.dataset.test, subject.card.input))
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
    right = (
        _read_files(subject, (_png(picture_of(i * (255 / 16))) for i in bundled.images)) == labels
    )
    figures = {"n": len(labels), "accuracy": float(right.mean())}
    lines = [f"{'digit':<8}{'n':>7}{'accuracy':>11}"]
    parts = {str(digit): right[labels == digit] for digit in range(10)} | {"all": right}
    for name, part in parts.items():
        lines.append(f"{name:<8}{len(part):>7,}{part.mean():>11.2%}")
    return Report("\n".join(lines), figures)


def uploads(subject: Subject) -> Report:
    """Test digits as users' pictures, nuisance by nuisance, each of other digits."""
    test = subject.dataset.test
    random = np.random.default_rng(SEED)
    figures: dict[str, Any] = {}
    lines = [f"{'nuisance':<24}{'n':>6}{'accuracy':>11}"]
    for name in (*NUISANCES, MIXED):
        count = UPLOADS_MIXED if name == MIXED else UPLOADS_EACH
        chosen = test.take(random.permutation(len(test))[:count])
        files = user_pictures(chosen.inputs[:, 0], name, SEED)
        accuracy = float((_read_files(subject, files) == chosen.labels).mean())
        figures[name] = {"n": count, "accuracy": accuracy}
        lines.append(f"{name:<24}{count:>6,}{accuracy:>11.2%}")
    alone = [figures[name]["accuracy"] for name in NUISANCES]
    lines.append(f"\nnuisances alone: {np.mean(alone):.2%} on average, {min(alone):.2%} at worst")
    return Report("\n".join(lines), figures)


def novelty(subject: Subject) -> Report:
    """How well novelty parts MNIST's test digits from pictures of no digit, uploaded as PNGs.

    AUROC by kind, and the share that goes unrecognized at the threshold of 0.5.
    """
    test = subject.dataset.test
    digits = subject.predict(test.inputs)[1]
    figures: dict[str, Any] = {"false_alarms": float((digits > 0.5).mean()), "kinds": {}}
    lines = [f"{'kind':<18}{'AUROC':>8}{'unrecognized':>15}"]
    for kind in unlike_held_out.KINDS:
        pictures = draw(kind, UNLIKE_EACH, unlike_held_out.material(kind, test))
        others = subject.predict(_prepared(subject, map(_png, pictures)))[1]
        pairs_in_order = mannwhitneyu(others, digits).statistic
        row = {
            "auroc": float(pairs_in_order / (len(others) * len(digits))),
            "unrecognized": float((others > 0.5).mean()),
        }
        figures["kinds"][kind.__name__] = row
        lines.append(f"{kind.__name__:<18}{row['auroc']:>8.4f}{row['unrecognized']:>15.2%}")
    means = {
        name: float(np.mean([row[name] for row in figures["kinds"].values()]))
        for name in ("auroc", "unrecognized")
    }
    lines.append(f"{'mean':<18}{means['auroc']:>8.4f}{means['unrecognized']:>15.2%}")
    lines.append(f"\n{figures['false_alarms']:.2%} of the {len(digits):,} test digits unrecognized")
    return Report("\n".join(lines), figures | {"mean": means, "n": UNLIKE_EACH})


def strips(subject: Subject) -> Report:
    """Numbers of test digits, read as POST /read does: the share of them that is exact."""
    finder = DigitFinder.of(subject.checkpoint.parts, subject.card.input)
    if finder is None:
        raise UserError("the checkpoint lacks what finds digits: perceiver fit-parts makes it")
    lengths = range(1, LONGEST_STRIP + 1)
    lines = [f"{'style':<20}" + "".join(f"{length:>7}" for length in lengths)]
    figures: dict[str, Any] = {"n": STRIPS}
    for name, style in STYLES.items():
        random = np.random.default_rng(SEED)
        row = []
        for length in lengths:
            made = (write(subject.dataset.test, length, style, random) for _ in range(STRIPS))
            row.append(float(np.mean([_read(subject, finder, m.picture) == m.text for m in made])))
        figures[name] = row
        lines.append(f"{name:<20}" + "".join(f"{share:>7.1%}" for share in row))
    return Report("\n".join([*lines, f"\n{STRIPS} strips of each style and length"]), figures)


def _read(subject: Subject, finder: DigitFinder, picture: Image.Image) -> str:
    """What a picture says, its lines parted by line feeds."""
    found = finder(_png(picture), Limits(pixels=picture.width * picture.height))
    if not found.inputs:
        return ""
    logits, novelty = subject.predict(np.stack(found.inputs))
    lines = found.choose(subject.card.calibration.probabilities(logits), novelty)
    labels = [subject.card.labels[answer] for answer in logits.argmax(axis=1)]
    return "\n".join("".join(labels[part.index] for part in line) for line in lines)


def _read_files(subject: Subject, files: Iterable[bytes]) -> NDArray[np.int64]:
    """Image files, each prepared as the service would -> the most probable classes (N,)."""
    return subject.read(_prepared(subject, files))


def _prepared(subject: Subject, files: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.stack([prepare_file(content, subject.card.input) for content in files])


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


SUITES: dict[str, Suite] = {
    "corruptions": corruptions,
    "digits8x8": digits8x8,
    "novelty": novelty,
    "strips": strips,
    "uploads": uploads,
}
