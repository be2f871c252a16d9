"""What finds the digits of numbers is learned anew for a checkpoint."""

import io
from pathlib import Path

import numpy as np
import pytest

from model.__main__ import main
from model.checkpoint.folder import Checkpoint
from model.data.labelled import Dataset, Labelled
from model.evaluation.suite import Subject
from model.modalities import Limits
from model.modalities.digits.modality import MODALITY, SPEC
from model.modalities.digits.synthetic.strips import PLAIN, write
from model.modalities.digits.training.parts import fit_parts
from model.network.recognizer import load_recognizer
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
DIGITS = Labelled(IMAGES[:, None], LABELS)
HALF = len(DIGITS) // 2


def test_a_short_training_reads_numbers_of_digits_that_stand_apart(checkpoint: Checkpoint):
    taught, others = DIGITS.take(np.arange(HALF)), DIGITS.take(np.arange(HALF, len(DIGITS)))
    dataset = Dataset("digits", "0", tuple("0123456789"), SPEC, taught, None, others)
    subject = Subject(checkpoint, load_recognizer(checkpoint), dataset)
    learned = fit_parts(subject, seed=0, strips=40, steps=20, judged_strips=60)
    finder = MODALITY.find_parts(learned, SPEC)
    assert finder is not None
    random = np.random.default_rng(0)
    right = 0
    for _ in range(10):
        strip = write(others, 3, PLAIN, random)
        file = io.BytesIO()
        strip.picture.save(file, "PNG")
        found = finder(file.getvalue(), Limits(pixels=10**7))
        logits, novelty = subject.predict(np.stack(found.inputs))
        lines = found.choose(checkpoint.card.calibration.probabilities(logits), novelty)
        text = "".join(str(logits[part.index].argmax()) for line in lines for part in line)
        right += text == strip.text
    assert right >= 7


def test_the_command_needs_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["fit-parts", str(tmp_path / "none")]) == 2
    assert "no checkpoint folder" in capsys.readouterr().err
