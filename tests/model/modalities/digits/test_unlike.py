"""What shows no digit is told from what does, by the shipped model and by one fitted here."""

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import mannwhitneyu

from app.inference.engines import create_engine
from model.checkpoint.folder import Checkpoint
from model.data.labelled import Labelled
from model.modalities.digits.form import prepare
from model.modalities.digits.modality import SPEC
from model.modalities.digits.options import DigitOptions
from model.modalities.digits.synthetic import unlike, unlike_held_out
from model.modalities.digits.training import TRAINING
from model.training.novelty import FALSE_ALARMS, fit_novelty
from tests.conftest import encode
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
DIGITS = Labelled(IMAGES[:, None], LABELS)


@pytest.fixture(scope="module")
def digits_novelty(checkpoint: Checkpoint) -> np.ndarray:
    engine = create_engine(checkpoint, "onnxruntime", "cpu", threads=2)
    return np.concatenate([engine.compute(p).novelty for p in np.split(IMAGES[:, None], 10)])


def test_digits_are_recognized(digits_novelty: np.ndarray):
    assert (digits_novelty > 0.5).mean() <= 0.03, "the threshold is meant for 1 %"


@pytest.mark.parametrize("kind", unlike_held_out.KINDS)
def test_other_pictures_are_not(
    kind: unlike.Kind, checkpoint: Checkpoint, digits_novelty: np.ndarray
):
    engine = create_engine(checkpoint, "onnxruntime", "cpu", threads=2)
    spec = checkpoint.card.input
    digits = unlike_held_out.material(kind, DIGITS)
    pictures = unlike.draw(kind, 60, digits, seed=1)
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
    def summaries(inputs: np.ndarray) -> np.ndarray:
        """Rows and columns summed: enough to tell a digit from another picture now and then."""
        scaled = inputs[:, 0].astype(np.float32) / 255
        return np.stack([scaled.sum(axis=1), scaled.sum(axis=2)], axis=1)

    known, validation = DIGITS.take(np.arange(600)), DIGITS.inputs[600:]
    options = DigitOptions(outliers=10)
    samples = TRAINING.unlike(known, SPEC, options, 3)
    assert len(samples.known) == 120

    def augmentation(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return TRAINING.augment(batch, options, generator)

    head, again = (fit_novelty(summaries, samples, validation, augmentation, 3) for _ in range(2))
    others = TRAINING.unlike(known, SPEC, options, 4).unlike
    with torch.inference_mode():
        novelty = head(torch.tensor(summaries(validation)))
        of_others = head(torch.tensor(summaries(others)))
    assert (novelty > 0.5).float().mean() == pytest.approx(FALSE_ALARMS, abs=0.0026)
    assert of_others.mean() > novelty.mean()
    for name, array in head.state_dict().items():
        assert torch.equal(array, again.state_dict()[name]), name


@pytest.mark.parametrize(
    "kind", [*unlike.TRAINING_KINDS, *unlike.DIGIT_KINDS, *unlike_held_out.KINDS]
)
def test_drawing_is_repeatable(kind: unlike.Kind):
    first, second = (unlike.draw(kind, 2, IMAGES, seed=5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(*first)
    assert min(first[0].size) >= 16
