"""Suites beyond the test set: `python -m model.evaluation.evaluate CHECKPOINT --suite NAME`.

A suite takes a checkpoint and MNIST, and gives its figures with the table that shows them.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import mannwhitneyu

from model.evaluation import faithfulness as deletion
from model.evaluation import plots
from model.evaluation.suite import Report, Subject, Suite
from model.modalities.digits import robustness
from model.modalities.digits.reading.segment import find_marks, judge, segment
from model.modalities.digits.synthetic import unlike_held_out as nondigits
from model.modalities.digits.synthetic.strips import STYLES, write
from model.modalities.digits.synthetic.unlike import draw, picture_of
from model.modalities.digits.synthetic.user_pictures import MIXED, NUISANCES, make_uploads
from model.network.recognizer import PixelExplainer, plain_classifier

SEED = 0
UPLOADS_EACH = 300
UPLOADS_MIXED = 1000

EXPLAINED = 500  # images
STRIPS = 100  # of each style and length
LONGEST_STRIP = 10

NONDIGITS = 500  # pictures of each kind


def corruptions(subject: Subject) -> Report:
    """MNIST's test images under the fifteen corruptions of MNIST-C."""
    readers = {subject.card.name: subject.read}
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
    right = (
        subject.read_files(_png(picture_of(image * (255 / 16))) for image in bundled.images)
        == labels
    )
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
    alone = [figures[name]["accuracy"] for name in NUISANCES]
    lines.append(f"\nnuisances alone: {np.mean(alone):.2%} on average, {min(alone):.2%} at worst")
    return Report("\n".join(lines), figures)


def novelty(subject: Subject) -> Report:
    """How well novelty parts MNIST's test digits from pictures of no digit, uploaded as PNGs.

    AUROC by kind, and the share that goes unrecognized at the threshold of 0.5.
    """
    test = subject.mnist.test
    digits = subject.predict(test.images)[1]
    figures: dict[str, Any] = {"false_alarms": float((digits > 0.5).mean()), "kinds": {}}
    lines = [f"{'kind':<18}{'AUROC':>8}{'unrecognized':>15}"]
    for kind in nondigits.KINDS:
        pictures = draw(kind, NONDIGITS, nondigits.material(kind, test))
        files = (_png(picture) for picture in pictures)
        prepared = np.stack([subject.prepare_file(content)[0] for content in files])
        others = subject.predict(prepared)[1]
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
    return Report("\n".join(lines), figures | {"mean": means, "n": NONDIGITS})


def faithfulness(subject: Subject) -> Report:
    """How fast an answer's probability falls as the ink that a map ranks highest is deleted.

    The curves are drawn in runs/faithfulness-NAME.png.
    """
    images = subject.mnist.test.images[:EXPLAINED]
    explainer = PixelExplainer(plain_classifier(subject.recognizer))
    device = next(explainer.parameters()).device
    with torch.inference_mode():
        attention = np.concatenate(
            [
                explainer(part[:, None].to(device))[1].cpu().numpy()
                for part in torch.tensor(images).split(100)
            ]
        )

    def probabilities(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return subject.card.calibration.probabilities(subject.predict(images)[0])

    curves = deletion.measure(images, attention, probabilities, SEED)
    out = Path(f"runs/faithfulness-{subject.card.name}.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(plots.deletion_curves(curves))
    shown = (0.1, 0.2, 0.3, 0.5)
    lines = [f"{'ink deleted first':<18}{'area':>8}" + "".join(f"{x:>8.0%}" for x in shown)]
    for name, curve in curves.items():
        steps = "".join(f"{curve[round(x * deletion.STEPS)]:>8.3f}" for x in shown)
        lines.append(f"{name:<18}{deletion.area(curve):>8.3f}{steps}")
    lines.append(
        f"\n{len(images)} test images; area under the answer's probability, and that -> {out}"
    )
    figures = {
        name: {"area": deletion.area(curve), "curve": curve.tolist()}
        for name, curve in curves.items()
    }
    return Report("\n".join(lines), figures | {"n": len(images)})


def strips(subject: Subject) -> Report:
    """Numbers of test digits, read as POST /read does: the share of them that is exact."""
    lengths = range(1, LONGEST_STRIP + 1)
    lines = [f"{'style':<20}" + "".join(f"{length:>7}" for length in lengths)]
    figures: dict[str, Any] = {"n": STRIPS}
    for name, style in STYLES.items():
        random = np.random.default_rng(SEED)
        row = []
        for length in lengths:
            made = (write(subject.mnist.test, length, style, random) for _ in range(STRIPS))
            row.append(float(np.mean([_read(subject, m.picture) == m.text for m in made])))
        figures[name] = row
        lines.append(f"{name:<20}" + "".join(f"{share:>7.1%}" for share in row))
    return Report("\n".join([*lines, f"\n{STRIPS} strips of each style and length"]), figures)


def _read(subject: Subject, picture: Image.Image) -> str:
    """What a picture says, its lines parted by line feeds."""
    found = segment(find_marks(picture, picture.size), subject.card.preprocessing)
    if not found.candidates:
        return ""
    logits, novelty = subject.predict(np.concatenate([c.pixels for c in found.candidates]))
    probabilities = subject.card.calibration.probabilities(logits)
    costs = judge(found.candidates, probabilities, novelty)
    labels = subject.card.labels
    return "\n".join(
        "".join(labels[int(logits[index].argmax())] for index in way) for way in found.best(costs)
    )


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


SUITES: dict[str, Suite] = {
    "corruptions": corruptions,
    "digits8x8": digits8x8,
    "faithfulness": faithfulness,
    "novelty": novelty,
    "strips": strips,
    "uploads": uploads,
}
