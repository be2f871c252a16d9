"""What shows no digit is told from what does, by the shipped model and by one fitted here."""

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import mannwhitneyu

from app.inference.engines import create_engine
from model.checkpoint.config import AugmentConfig, Preprocessing
from model.checkpoint.folder import Checkpoint
from model.data.labelled import LabelledImages
from model.modalities.digits.form import prepare
from model.modalities.digits.synthetic import unlike as outliers
from model.modalities.digits.synthetic import unlike_held_out as nondigits
from model.training.novelty import FALSE_ALARMS, fit_novelty
from tests.conftest import encode
from tests.digits import load_digits

IMAGES, LABELS = load_digits()


@pytest.fixture(scope="module")
def digits_novelty(checkpoint: Checkpoint) -> np.ndarray:
    engine = create_engine(checkpoint, "onnxruntime", "cpu", threads=2)
    return np.concatenate([engine.compute(p).novelty for p in np.split(IMAGES[:, None], 10)])


def test_digits_are_recognized(digits_novelty: np.ndarray):
    assert (digits_novelty > 0.5).mean() <= 0.03, "the threshold is meant for 1 %"


@pytest.mark.parametrize("kind", nondigits.KINDS)
def test_other_pictures_are_not(
    kind: outliers.Kind, checkpoint: Checkpoint, digits_novelty: np.ndarray
):
    engine = create_engine(checkpoint, "onnxruntime", "cpu", threads=2)
    spec = checkpoint.card.preprocessing
    digits = nondigits.material(kind, LabelledImages(IMAGES, LABELS))
    pictures = outliers.draw(kind, 60, digits, seed=1)
    novelty = engine.compute(np.stack([prepare(picture, spec) for picture in pictures])).novelty
    auroc = mannwhitneyu(novelty, digits_novelty).statistic / (len(novelty) * len(digits_novelty))
    assert auroc >= 0.95
    assert (novelty > 0.5).mean() >= 0.6


def test_the_answer_says_so(client: httpx.Client):
    seven = Image.fromarray(IMAGES[LABELS == 7][0])
    blank = Image.new("RGB", (300, 200), "white")
    files = [("files", encode(picture)) for picture in (seven, blank)]
    known, unknown = client.post("/predict/batch", files=files).json()["predictions"]
    assert known["recognized"] is True
    assert 0 <= known["novelty"] <= 0.5
    assert unknown["recognized"] is False
    assert unknown["novelty"] == 1
    assert client.post("/predict", files={"file": encode(blank)}).json()["recognized"] is False


def test_the_threshold_is_what_validation_digits_seldom_pass():
    def summaries(images: np.ndarray) -> np.ndarray:
        """Rows and columns summed: enough to tell a digit from a drawn outlier now and then."""
        scaled = images.astype(np.float32) / 255
        return np.stack([scaled.sum(axis=1), scaled.sum(axis=2)], axis=1)

    arguments = (summaries, IMAGES[:600], IMAGES[600:], Preprocessing(), AugmentConfig())
    head, again = (fit_novelty(*arguments, outliers=10, seed=3) for _ in range(2))
    with torch.inference_mode():
        novelty = head(torch.tensor(summaries(IMAGES[600:])))
        drawn = np.stack(
            [
                prepare(picture, Preprocessing())[0]
                for kind in outliers.TRAINING_KINDS
                for picture in outliers.draw(kind, 10, IMAGES, seed=4)
            ]
        )
        of_outliers = head(torch.tensor(summaries(drawn)))
    assert (novelty > 0.5).float().mean() == pytest.approx(FALSE_ALARMS, abs=0.0026)
    assert of_outliers.mean() > novelty.mean()
    for name, array in head.state_dict().items():
        assert torch.equal(array, again.state_dict()[name]), name


@pytest.mark.parametrize(
    "kind", [*outliers.TRAINING_KINDS, *outliers.DIGIT_KINDS, *nondigits.KINDS]
)
def test_drawing_is_repeatable(kind: outliers.Kind):
    first, second = (outliers.draw(kind, 2, IMAGES, seed=5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(*first)
    assert min(first[0].size) >= 16
