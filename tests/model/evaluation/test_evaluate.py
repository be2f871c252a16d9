"""Figures against small cases worked by hand, and the command against a wrong claim."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from model.__main__ import main
from model.checkpoint.calibration import Calibration
from model.checkpoint.card import Evaluation
from model.checkpoint.folder import read_checkpoint
from model.evaluation.scores import (
    broken_claims,
    expected_calibration_error,
    negative_log_likelihood,
    score,
)
from model.training.calibrate import fit_calibration
from tests.conftest import ROOT

PLAIN = Calibration(temperature=1.0)
SHIPPED = ROOT / "weights/perceiver-mnist"


def test_nll_is_the_mean_log_probability_of_the_truth():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]], dtype=np.float32))
    expected = -(np.log(0.7) + np.log(0.25)) / 2
    assert negative_log_likelihood(PLAIN, logits, np.array([0, 1])) == pytest.approx(
        expected, rel=1e-6
    )


def test_calibration_error_of_a_case_worked_by_hand():
    # 15 bins of two images, one of each right: gaps from 0 to 0.4 in equal steps.
    confidences = np.linspace(0.5, 0.9, 15).repeat(2)
    shuffled = np.random.default_rng(0).permutation(30)
    correct = np.tile([True, False], 15)
    error = expected_calibration_error(confidences[shuffled], correct[shuffled])
    assert error == pytest.approx(0.2)
    assert expected_calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0


def test_score_counts_by_class():
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]] * 5
    figures = score(logits, np.array([0, 1, 1, 2]), ["a", "b", "c"], PLAIN)
    assert (figures.n, figures.errors, figures.accuracy) == (4, 1, 0.75)
    assert [(f.label, f.n) for f in figures.per_class] == [("a", 1), ("b", 2), ("c", 1)]
    assert [f.recall for f in figures.per_class] == [1, 0.5, 1]
    assert [f.precision for f in figures.per_class] == [0.5, 1, 1]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("sharpness", [0.7, 1.0, 2.0])
def test_calibration_that_made_the_labels_is_found(temperature: float, sharpness: float):
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 10)).astype(np.float32) * 3
    truth = Calibration(temperature=temperature, sharpness=sharpness)
    probabilities = truth.probabilities(logits)
    labels = (probabilities.cumsum(1) > random.random((20_000, 1))).argmax(1)
    found = fit_calibration(logits, labels)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.sharpness == pytest.approx(sharpness, rel=0.1)


@given(
    arrays(np.float32, (3, 10), elements=st.floats(-200, 200, width=32)),
    st.floats(0.05, 20),
    st.floats(0.05, 20),
)
def test_probabilities_are_probabilities_in_the_logits_order(
    logits: np.ndarray, temperature: float, sharpness: float
):
    calibration = Calibration(temperature=temperature, sharpness=sharpness)
    probabilities = calibration.probabilities(logits)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-9)
    for row, order in zip(probabilities, logits.argsort(axis=1), strict=True):
        assert (np.diff(row[order]) >= 0).all()


def test_sharpness_of_one_is_temperature_scaling():
    logits = np.random.default_rng(0).normal(size=(5, 10)) * 4
    np.testing.assert_allclose(
        Calibration(temperature=1.7).probabilities(logits), softmax(logits / 1.7, axis=1)
    )


def test_claims_are_compared():
    claimed = read_checkpoint(SHIPPED).card.metrics["test"]
    assert broken_claims(claimed, claimed) == []
    worse = claimed.model_copy(update={"accuracy": claimed.accuracy - 0.001})
    (sentence,) = broken_claims(worse, claimed)
    assert "accuracy" in sentence
    assert len(broken_claims(claimed.model_copy(update={"n": 7}), claimed)) == 1


def evaluate(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model", "evaluate", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_shipped_card_tells_the_truth_and_a_false_claim_is_found_out(
    mnist_folder: Path, tmp_path: Path
):
    folder = tmp_path / "boaster"
    shutil.copytree(SHIPPED, folder)
    card = json.loads((folder / "card.json").read_text())
    truth = Evaluation(**card["metrics"]["test"])
    card["metrics"]["test"]["accuracy"] = 0.9999
    (folder / "card.json").write_text(json.dumps(card))
    stored = tmp_path / "figures.json"
    result = evaluate(str(folder), "--data", str(mnist_folder), "--out", str(stored))
    assert result.returncode == 1, result.stderr
    assert "claims accuracy 0.99990" in result.stdout
    assert broken_claims(Evaluation(**json.loads(stored.read_text())), truth) == []
    assert truth.accuracy >= 0.99


def test_missing_checkpoint_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(tmp_path / "none")]) == 2
    assert "no checkpoint folder" in capsys.readouterr().err


def test_a_suite_has_its_table_and_its_figures(mnist_folder: Path, tmp_path: Path):
    stored = tmp_path / "figures.json"
    flags = ("--suite", "digits8x8", "--data", str(mnist_folder), "--out", str(stored))
    result = evaluate(str(SHIPPED), *flags)
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(stored.read_text())
    assert figures["n"] == 1797
    assert figures["accuracy"] >= 0.9
    assert f"{figures['accuracy']:.2%}" in result.stdout


def test_an_unknown_suite_is_a_sentence(capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(SHIPPED), "--suite", "horoscope"]) == 2
    told = capsys.readouterr().err
    assert all(suite in told for suite in ("corruptions", "faithfulness"))
