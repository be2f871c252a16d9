"""Training: resumed runs, several processes, and the command line, on small real runs."""

import copy
import dataclasses
import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from model.__main__ import main
from model.checkpoint.config import PerceiverConfig, TrainConfig
from model.checkpoint.folder import read_checkpoint
from model.checkpoint.history import Epoch
from model.data.labelled import Labelled, split
from model.data.mnist import MNIST_SHA256
from model.modalities.digits.modality import SPEC
from model.modalities.digits.options import AugmentRanges, DigitOptions
from model.modalities.digits.training import TRAINING
from model.training.options import Train
from model.training.runtime import Runtime, TrainError
from model.training.train import STATE_FILE
from model.training.trainer import Plan, Trainer
from tests.digits import load_digits

SMALL_MODEL = PerceiverConfig(
    depth=1, num_latents=4, latent_dim=16, latent_heads=2, cross_heads=2, self_per_cross_atn=1,
    attn_dropout=0.1,
)  # fmt: skip
SMALL_RECIPE = TrainConfig(
    epochs=3, batch_size=40, learning_rate=0.003, warmup_steps=5, validation_samples=200
)


def small_trainer(recipe: TrainConfig = SMALL_RECIPE) -> Trainer:
    images, labels = load_digits()
    train, validation = split(Labelled(images[:, None], labels), 200, seed=0)
    runtime = Runtime(torch.device("cpu"), bfloat16=False, compile=False)
    plan = Plan(SMALL_MODEL, SPEC, "0123456789", recipe, DigitOptions(), TRAINING.augment)
    return Trainer(plan, train, validation, runtime)


def run_train(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model", "train", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def without_times(state: dict) -> dict:
    history = [{k: v for k, v in e.items() if k != "seconds"} for e in state["history"]]
    return {**state, "history": history}


def assert_identical(first, second) -> None:
    """Nested states, bit for bit."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_identical(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_identical(one, other)
    else:
        assert first == second


def test_resumed_run_repeats_an_uninterrupted_one_bit_for_bit(tmp_path: Path):
    whole = small_trainer()
    for _ in range(3):
        whole.run_epoch()

    stopped = small_trainer()
    stopped.run_epoch()
    torch.save(stopped.state(), tmp_path / STATE_FILE)
    resumed = small_trainer()
    resumed.restore(torch.load(tmp_path / STATE_FILE, weights_only=True))
    for _ in range(2):
        resumed.run_epoch()

    assert_identical(without_times(resumed.state()), without_times(whole.state()))


def test_training_learns_and_another_seed_differs():
    recipe = SMALL_RECIPE.model_copy(update={"epochs": 6, "learning_rate": 0.01})
    trainer = small_trainer(recipe)
    losses = [trainer.run_epoch().train_loss for _ in range(6)]
    assert losses[-1] < losses[0] - 0.2
    other = small_trainer(recipe.model_copy(update={"seed": 1}))
    assert other.run_epoch().train_loss != losses[0]


def test_best_epoch_is_the_one_of_least_validation_loss():
    trainer = small_trainer()
    trainer.history = [
        Epoch(
            epoch=number,
            train_loss=1,
            train_accuracy=0.5,
            validation_accuracy=accuracy,
            validation_loss=loss,
            seconds=1,
        )
        for number, (accuracy, loss) in enumerate(
            [(0.8, 0.3), (0.9, 0.2), (0.85, 0.1), (0.9, 0.15)], start=1
        )
    ]
    assert trainer.best.epoch == 3


def test_best_weights_are_those_of_the_best_epoch():
    trainer = small_trainer(SMALL_RECIPE.model_copy(update={"learning_rate": 0.02}))
    weights = {}
    for _ in range(3):
        epoch = trainer.run_epoch()
        weights[epoch.epoch] = copy.deepcopy(trainer.averaged.state_dict())
    assert_identical(trainer.best_weights, weights[trainer.best.epoch])


def test_another_recipe_is_not_resumed():
    trainer = small_trainer()
    trainer.run_epoch()
    other = small_trainer(SMALL_RECIPE.model_copy(update={"learning_rate": 0.1}))
    with pytest.raises(TrainError, match=r"another learning_rate \(0.003, not 0.1\)"):
        other.restore(trainer.state())


@pytest.fixture(scope="module")
def tiny_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in MNIST's format that is not MNIST."""
    folder = tmp_path_factory.mktemp("idx")
    for name in MNIST_SHA256:
        (folder / name).write_bytes(b"\0\0\x08\1\0\0\0\0")
    return folder


def test_wrong_data_is_refused_in_a_sentence(tiny_mnist: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--data", str(tiny_mnist)]) == 2
    assert "SHA-256 differs" in capsys.readouterr().err


def test_missing_data_names_folder_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--data", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert str(tmp_path) in told
    assert all(name in told for name in MNIST_SHA256)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_features": 20}, "num_features is 20, but the data needs 10"),
        ({"num_channels": 3}, "num_channels is 3, but the data needs 1"),
        ({"input_shape": (14, 14)}, "input_shape is"),
    ],
)
def test_model_that_does_not_fit_the_data_is_refused_at_once(arguments: dict, sentence: str):
    trainer = small_trainer()
    plan = dataclasses.replace(trainer.plan, model=SMALL_MODEL.model_copy(update=arguments))
    with pytest.raises(TrainError, match=re.escape(sentence)):
        dataclasses.replace(trainer, plan=plan)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epochs", "0"], "epochs: Input should be greater than or equal to 1"),
        (["--epochs", "many"], "epochs: Input should be a valid integer"),
        (["--latent-heads", "7"], "latent_heads (7) must divide latent_dim (192)"),
        (["--cross-heads", "7"], "cross_heads (7) must divide latent_dim (192)"),
        (["--name", "my model"], "name: String should match pattern"),
        (["--version", "1.1"], "version: String should match pattern"),
        (["--seed", "20251123071638"], "seed: Input should be less than"),
        (["--out", "tests"], "tests is a folder without card.json"),
        (["--device", "cuda:99"], "no device cuda:99"),
        (["--device", "abacus"], "none of auto, cpu, cuda, cuda:N"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--preset", "none"], "preset: Input should be 'mnist', 'served' or 'smoke'"),
        (["--modality", "smell"], "there is no modality 'smell'"),
        (["--augment.shear", "2"], "options.augment.shear: Input should be less than"),
    ],
)
def test_bad_flags_are_explained(
    flags: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    try:
        code = main(["train", *flags, "--data", str(tmp_path)])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert sentence in capsys.readouterr().err


def test_flags_go_over_the_preset_and_the_environment_counts_for_nothing(monkeypatch):
    monkeypatch.setenv("NAME", "somebody")
    monkeypatch.setenv("MODEL", "another")
    options = Train.parse(["--preset", "smoke", "--epochs", "7", "--augment.shear", "0"])
    assert options.name == "perceiver-smoke"
    assert options.recipe.epochs == 7
    assert options.recipe.train_samples == 8000
    assert options.options == DigitOptions(outliers=50, augment=AugmentRanges(shear=0))


FAST = (
    "--preset", "smoke", "--train-samples", "640", "--validation-samples", "200", "--epochs", "3",
    "--num-latents", "4", "--latent-dim", "16", "--latent-heads", "2", "--cross-heads", "2",
    "--precision", "float32", "--outliers", "10",
)  # fmt: skip
EPOCHS = 3


@dataclass(frozen=True)
class Run:
    """A run of the command, and where it left what."""

    flags: tuple[str, ...]
    weights: Path
    folder: Path

    @classmethod
    def below(cls, folder: Path, data: Path) -> "Run":
        """One that has not begun."""
        weights, run = folder / "weights", folder / "run"
        places = ("--data", str(data), "--out", str(weights), "--run-folder", str(run))
        return cls((*FAST, *places), weights, run)

    def history(self) -> list[dict]:
        """The epochs that are kept."""
        return torch.load(self.folder / STATE_FILE, weights_only=True)["history"]


@pytest.fixture(scope="module")
def whole_run(
    mnist_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, subprocess.CompletedProcess[str]]:
    """A run from its start to its end, and what the command said."""
    run = Run.below(tmp_path_factory.mktemp("whole"), mnist_folder)
    return run, run_train(*run.flags)


def test_command_writes_a_checkpoint_that_evaluate_confirms(
    whole_run: tuple[Run, subprocess.CompletedProcess[str]],
    mnist_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    run, result = whole_run
    assert result.returncode == 0, result.stderr
    assert f"epoch   {EPOCHS}/{EPOCHS}" in result.stdout
    assert "sample/s" in result.stderr

    checkpoint = read_checkpoint(run.weights)
    assert checkpoint.card.dataset.train == 640
    assert checkpoint.card.metrics["test"].n == 10_000
    for plot in ("training", "confusion", "misread", "attention"):
        assert (run.weights / f"plots/{plot}.png").read_bytes().startswith(b"\x89PNG")

    stored = tmp_path / "evaluation.json"
    flags = ("--data", str(mnist_folder), "--out", str(stored))
    assert main(["evaluate", str(run.weights), *flags]) == 0
    assert "claims hold" in capsys.readouterr().out
    assert json.loads(stored.read_text())["n"] == 10_000


ENDLESS = """
import sys
from model.__main__ import main
from model.training.trainer import Trainer

train_step = Trainer._train_step

def train_step_again(self, *batch):
    while len(self.history) == 2:
        train_step(self, *batch)
    return train_step(self, *batch)

Trainer._train_step = train_step_again
sys.exit(main(["train", *sys.argv[1:]]))
"""


def test_interrupted_run_is_resumed_by_two_processes_to_the_loss_curve_of_one(
    whole_run: tuple[Run, subprocess.CompletedProcess[str]],
    mnist_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """Interrupted within an epoch that would not end."""
    run = Run.below(tmp_path, mnist_folder)
    # A shell that starts the tests in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-u", "-c", ENDLESS, *run.flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch   2/"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert len(run.history()) == 2

    assert main(["train", *run.flags]) == 2
    assert "--resume" in capsys.readouterr().err

    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command = [sys.executable, "-m", *launcher, "model", "train", *run.flags, "--resume"]
    resumed = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    assert [entry["epoch"] for entry in run.history()] == list(range(1, EPOCHS + 1))
    assert read_checkpoint(run.weights).card.training.recipe.epochs == EPOCHS

    curves = [
        [(epoch["train_loss"], epoch["validation_loss"]) for epoch in each.history()]
        for each in (whole_run[0], run)
    ]
    np.testing.assert_allclose(*curves, rtol=1e-4)
