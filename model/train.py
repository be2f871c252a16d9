"""Trains a Perceiver: `python -m model.train`, also under torchrun.

Keeps its state in a run folder after every epoch; ends with a checkpoint folder. All randomness of
an epoch follows from the seed and its number, so a resumed run repeats an uninterrupted one.
"""

import contextlib
import copy
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import onnxruntime
import safetensors.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from scipy.special import softmax
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters
from tqdm import tqdm

from model import plots
from model.augment import random_grids, warp
from model.checkpoint import (
    ONNX_FILE,
    WEIGHTS_FILE,
    Card,
    DatasetInfo,
    TrainingRecord,
    read_checkpoint,
    write_checkpoint,
)
from model.config import PerceiverConfig, Preprocessing, TrainConfig, explain
from model.datasets import MNIST, DatasetError, LabelledImages, load_mnist, split
from model.evaluate import fit_temperature, predict_logits, score, table
from model.export import PixelClassifier, export_onnx
from model.history import Epoch
from model.perceiver import Perceiver

STATE_FILE = "state.pt"

PRESETS: dict[str, dict[str, Any]] = {
    "mnist": {
        "model": {
            "depth": 3,
            "fourier_bands": 8,
            "latent_dim": 128,
            "self_per_cross_atn": 1,
            "cross_heads": 8,
        },
        "recipe": {"epochs": 40},
    },
    "smoke": {
        "name": "perceiver-smoke",
        "compile": False,
        "model": {"depth": 1, "self_per_cross_atn": 1, "cross_heads": 4},
        "recipe": {"epochs": 2, "train_images": 8000, "validation_images": 1000},
    },
}


class TrainError(Exception):
    """The run cannot start or go on; the message says why."""


class TrainOptions(BaseSettings):
    """Train a Perceiver on MNIST and write a checkpoint folder."""

    model_config = SettingsConfigDict(
        cli_prog_name="perceiver train",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_shortcuts={
            f"{group}.{name}".replace("_", "-"): name.replace("_", "-")
            for group, config in (("model", PerceiverConfig), ("recipe", TrainConfig))
            for name in config.model_fields
            if name != "augment"
        },
    )

    preset: Literal["mnist", "smoke"] = Field(
        "mnist", description="starting values: mnist, or smoke (within a minute on 2 cores)"
    )
    data: Path | None = Field(None, description="folder of MNIST's IDX files; else downloaded")
    name: str = Field("perceiver-mnist", description="the checkpoint's name")
    version: str = Field("1.0.0", description="the checkpoint's semantic version")
    out: Path | None = Field(None, description="checkpoint folder; default weights/NAME")
    run: Path | None = Field(None, description="folder of the run's state; default runs/NAME")
    resume: bool = Field(False, description="go on with the run in the run folder")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of matrix products in training; auto: bfloat16 where it is native"
    )
    compile: bool = Field(
        default_factory=lambda: torch.cuda.is_available() or shutil.which("g++") is not None,
        description="compile the training step; by default where a compiler is at hand",
    )
    model: PerceiverConfig = PerceiverConfig()
    recipe: TrainConfig = TrainConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags alone: a variable such as MODEL or SEED in the environment is not meant for us."""
        return (init_settings,)


@dataclass
class Runtime:
    """Where a training process runs, and its place among the processes of the run."""

    device: torch.device
    bfloat16: bool
    compile: bool
    rank: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def environment(self) -> dict[str, str]:
        """Hardware and versions, for the card."""
        return {
            "device": _device_name(self.device),
            "processes": str(self.processes),
            "threads": str(torch.get_num_threads()),
            "precision": "bfloat16 autocast" if self.bfloat16 else "float32",
            "compiled": str(self.compile).lower(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
        }


@dataclass
class Trainer:
    """The learning itself: one object holds all that an epoch changes."""

    config: PerceiverConfig
    recipe: TrainConfig
    train: LabelledImages
    validation: LabelledImages
    class_names: Sequence[str]
    runtime: Runtime
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    history: list[Epoch] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        recipe, runtime = self.recipe, self.runtime
        if recipe.batch_size % runtime.processes:
            raise TrainError(f"batch size {recipe.batch_size} is no multiple of the processes")
        if len(self.train) < recipe.batch_size:
            raise TrainError(f"{len(self.train)} training images are less than one batch")
        self.steps_per_epoch = len(self.train) // recipe.batch_size
        torch.manual_seed(recipe.seed)
        self.perceiver = Perceiver(**self.config.arguments()).to(runtime.device)
        self.averaged = copy.deepcopy(self.perceiver).requires_grad_(False)
        self.parameters: list[Tensor] = list(self.perceiver.parameters())
        decayed = [p for p in self.parameters if p.ndim >= 2 and p is not self.perceiver.latents]
        others = [p for p in self.parameters if p.ndim < 2 or p is self.perceiver.latents]
        self.optimizer = torch.optim.AdamW(
            cast(
                "list[dict[str, Any]]",
                [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            ),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.images = torch.tensor(self.train.images, device=runtime.device)[:, None]
        self.labels = torch.tensor(self.train.labels, device=runtime.device)
        self.classifier = PixelClassifier(self.perceiver, self.preprocessing)
        self.step = torch.compile(self._losses) if runtime.compile else self._losses

    @property
    def best(self) -> Epoch:
        """The epoch that validation picks: most right, then least loss."""
        return max(self.history, key=lambda e: (e.validation_accuracy, -e.validation_loss))

    def run_epoch(self, progress: bool = False) -> Epoch:
        """Trains one epoch and scores the averaged weights on the validation images."""
        started = time.perf_counter()
        number = len(self.history) + 1
        loss, accuracy = self._train_epoch(number, progress)
        logits = predict_logits(
            PixelClassifier(self.averaged, self.preprocessing).eval(), self.validation.images
        )
        figures = score(logits, self.validation.labels, self.class_names, 1.0)
        self.history.append(
            Epoch(
                epoch=number,
                train_loss=loss,
                train_accuracy=accuracy,
                validation_loss=figures.nll,
                validation_accuracy=figures.accuracy,
                seconds=time.perf_counter() - started,
            )
        )
        if self.best is self.history[-1]:
            self.best_weights = {k: v.clone() for k, v in self.averaged.state_dict().items()}
        return self.history[-1]

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if nothing had happened."""
        return {
            "config": self.config.model_dump(mode="json"),
            "recipe": self.recipe.model_dump(mode="json"),
            "history": [entry.model_dump() for entry in self.history],
            "perceiver": self.perceiver.state_dict(),
            "averaged": self.averaged.state_dict(),
            "best_weights": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state.

        Raises:
            TrainError: it is of a run with another model or recipe.
        """
        for part, mine in (("config", self.config), ("recipe", self.recipe)):
            ours, theirs = mine.model_dump(mode="json"), state[part]
            changed = [name for name in ours if ours[name] != theirs.get(name)]
            if changed:
                raise TrainError(
                    "the run was started with another "
                    + ", ".join(
                        f"{name} ({theirs.get(name)}, not {ours[name]})" for name in changed
                    )
                )
        self.perceiver.load_state_dict(state["perceiver"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_weights = state["best_weights"]
        self.history = [Epoch(**entry) for entry in state["history"]]

    def _train_epoch(self, number: int, progress: bool) -> tuple[float, float]:
        """Loss and accuracy over the epoch's augmented images."""
        recipe, runtime = self.recipe, self.runtime
        self.perceiver.train()
        generator = torch.Generator(runtime.device)
        generator.manual_seed(recipe.seed * 1_000_003 + number)
        torch.manual_seed((recipe.seed * 1_000_003 + number) * 1009 + runtime.rank)  # for dropout
        order = torch.randperm(len(self.images), generator=generator, device=runtime.device)
        totals = torch.zeros(2, device=runtime.device)  # loss, accuracy
        with _bar(number, recipe, self.steps_per_epoch, progress) as bar:
            for step in range(self.steps_per_epoch):
                self._set_learning_rate((number - 1) * self.steps_per_epoch + step)
                batch = order[step * recipe.batch_size :][: recipe.batch_size]
                totals += self._train_step(batch, generator)
                if step % 10 == 9:
                    loss, accuracy = (totals / (step + 1)).tolist()
                    bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.2%}", refresh=False)
                bar.update(recipe.batch_size)
        if runtime.processes > 1:
            dist.all_reduce(totals)
        loss, accuracy = (totals / (self.steps_per_epoch * runtime.processes)).tolist()
        return loss, accuracy

    def _train_step(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """One update from the images with indices `batch`; returns (loss, accuracy)."""
        runtime = self.runtime
        # Every process draws the maps of the joint batch and warps its own share with its own.
        height, width = self.train.images.shape[1:]
        grids = random_grids(len(batch), (height, width), self.recipe.augment, generator)
        share = slice(runtime.rank, None, runtime.processes)
        mine = batch[share]
        images = warp(self.images[mine].float(), grids[share])
        loss, accuracy = self.step(images, self.labels[mine])
        loss.backward()
        if runtime.processes > 1:
            self._average_gradients()
        clip_grad_norm_(self.parameters, self.recipe.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._average_weights()
        return torch.stack([loss.detach(), accuracy])

    def _losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss to descend and accuracy of a batch of pixel values in [0, 255]."""
        with torch.autocast(
            self.runtime.device.type, torch.bfloat16, enabled=self.runtime.bfloat16
        ):
            logits = self.classifier(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        return loss, (logits.argmax(dim=1) == labels).float().mean()

    def _set_learning_rate(self, step: int) -> None:
        """Linear warm-up, then a cosine down to 0 at the last step."""
        recipe = self.recipe
        total = recipe.epochs * self.steps_per_epoch
        warmup = min(1.0, (step + 1) / (recipe.warmup_steps + 1))
        rate = recipe.learning_rate * warmup * (0.5 + 0.5 * math.cos(math.pi * step / total))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Early on the average forgets fast, or it would long remember the initial weights.
        self.ema_decay = min(recipe.ema_decay, (1 + step) / (10 + step))

    def _average_weights(self) -> None:
        with torch.no_grad():
            averaged: list[Tensor] = list(self.averaged.parameters())
            torch._foreach_lerp_(averaged, self.parameters, 1 - self.ema_decay)

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        joint = parameters_to_vector(gradients)
        dist.all_reduce(joint)
        vector_to_parameters(joint / self.runtime.processes, gradients)


def train(options: TrainOptions) -> Path:
    """Runs or resumes a training to its end; returns the checkpoint folder.

    Raises:
        TrainError: the run cannot start or go on.
        DatasetError: the data set cannot be had.
    """
    recipe = options.recipe
    out = options.out or Path("weights") / options.name
    run = options.run or Path("runs") / options.name
    with _runtime(options) as runtime:
        mnist = load_mnist(options.data)
        kept, validation = split(mnist.train, recipe.validation_images, recipe.seed)
        if recipe.train_images is not None:
            kept = kept.take(np.arange(min(recipe.train_images, len(kept))))
        trainer = Trainer(options.model, recipe, kept, validation, mnist.class_names, runtime)
        _take_up(trainer, run, options.resume)
        if runtime.leads:
            print(_headline(trainer), flush=True)
        while len(trainer.history) < recipe.epochs:
            epoch = trainer.run_epoch(progress=runtime.leads)
            if runtime.leads:
                _save_state(trainer.state(), run)
                left = np.median([e.seconds for e in trainer.history]) * (
                    recipe.epochs - epoch.epoch
                )
                tqdm.write(
                    f"epoch {epoch.epoch:>3}/{recipe.epochs}  loss {epoch.train_loss:.4f}  "
                    f"accuracy {epoch.train_accuracy:.2%}  "
                    f"validation {epoch.validation_accuracy:.2%} ({epoch.validation_loss:.4f})  "
                    f"{epoch.seconds:.0f} s, {_clock(left)} left"
                )
        if runtime.leads:
            _finish(trainer, mnist, options, out)
    return out


def _finish(trainer: Trainer, mnist: MNIST, options: TrainOptions, out: Path) -> None:
    """Calibrates and scores the chosen weights, exports them and writes the checkpoint."""
    perceiver = Perceiver(**trainer.config.arguments())
    perceiver.load_state_dict({k: v.cpu() for k, v in trainer.best_weights.items()})
    classifier = PixelClassifier(perceiver, trainer.preprocessing).eval()
    validation = predict_logits(classifier, trainer.validation.images)
    temperature = fit_temperature(validation, trainer.validation.labels)
    test = predict_logits(classifier, mnist.test.images)
    metrics = {
        "validation": score(validation, trainer.validation.labels, mnist.class_names, temperature),
        "test": score(test, mnist.test.labels, mnist.class_names, temperature),
    }
    card = Card(
        name=options.name,
        version=options.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        parameters=sum(p.numel() for p in perceiver.parameters()),
        model=trainer.config,
        labels=mnist.class_names,
        preprocessing=trainer.preprocessing,
        temperature=temperature,
        metrics=metrics,
        dataset=DatasetInfo(
            name=mnist.name,
            sha256=mnist.digest,
            train=len(trainer.train),
            validation=len(trainer.validation),
            test=len(mnist.test),
        ),
        training=TrainingRecord(
            recipe=trainer.recipe,
            chosen_epoch=trainer.best.epoch,
            seconds=sum(epoch.seconds for epoch in trainer.history),
            environment=trainer.runtime.environment(),
        ),
    )
    example = trainer.validation.images[0]
    with torch.no_grad():
        pixels = torch.tensor(example)[None, None]
        _, attention = perceiver.forward_with_attention(classifier.normalise(pixels))
    probabilities = softmax(test.astype(np.float64) / temperature, axis=1)
    predicted = probabilities.argmax(axis=1)
    history = "".join(epoch.model_dump_json() + "\n" for epoch in trainer.history)
    files = {
        WEIGHTS_FILE: safetensors.torch.save(perceiver.state_dict()),
        ONNX_FILE: export_onnx(perceiver, trainer.preprocessing),
        "history.jsonl": history.encode(),
        "plots/training.png": plots.training_curves(trainer.history),
        "plots/confusion.png": plots.confusion_matrix(
            mnist.test.labels, predicted, mnist.class_names
        ),
        "plots/misread.png": plots.misread_images(
            mnist.test.images, mnist.test.labels, probabilities, mnist.class_names
        ),
        "plots/attention.png": plots.attention_maps(example, attention[0].numpy()),
    }
    write_checkpoint(out, card, files)
    read_checkpoint(out)  # what was written can be read again
    print(f"\nTest set, scored once:\n{table(metrics['test'])}\n\nCheckpoint: {out}")


@contextlib.contextmanager
def _runtime(options: TrainOptions) -> Iterator[Runtime]:
    """Finds the device; joins the other processes where torchrun started several."""
    rank, local_rank, processes = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))
    )
    device = _device(options.device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if options.precision != "auto":
        bfloat16 = options.precision == "bfloat16"
    if processes > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Runtime(device, bfloat16, options.compile, rank, processes)
    finally:
        if processes > 1:
            dist.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{local_rank}" if name == "cuda" else name)
    except RuntimeError:
        raise TrainError(f"device {name!r} is none of auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainError(f"PyTorch finds no device {name} here")
    return device


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def _take_up(trainer: Trainer, run: Path, resume: bool) -> None:
    """Restores the state of an unfinished run, if one is there and that is wanted."""
    path = run / STATE_FILE
    if not path.exists():
        return
    state = torch.load(path, map_location=trainer.runtime.device, weights_only=True)
    done, epochs = len(state["history"]), state["recipe"]["epochs"]
    if resume:
        trainer.restore(state)
    elif done < epochs:
        raise TrainError(
            f"{run} holds a run stopped after epoch {done} of {epochs}: "
            "add --resume to go on with it, or delete the folder to start anew"
        )


def _save_state(state: dict[str, Any], run: Path) -> None:
    run.mkdir(parents=True, exist_ok=True)
    partial = run / f".{STATE_FILE}.partial"
    torch.save(state, partial)
    partial.replace(run / STATE_FILE)


def _headline(trainer: Trainer) -> str:
    parameters = sum(p.numel() for p in trainer.parameters)
    environment = trainer.runtime.environment()
    return (
        f"{parameters:,} parameters, {len(trainer.train):,} training and "
        f"{len(trainer.validation):,} validation images; {environment['device']}, "
        f"{environment['precision']}{', compiled' * trainer.runtime.compile}; "
        f"epochs {len(trainer.history) + 1} to {trainer.recipe.epochs}"
    )


def _bar(number: int, recipe: TrainConfig, steps: int, shown: bool) -> "tqdm[Any]":
    return tqdm(
        total=steps * recipe.batch_size,
        desc=f"epoch {number}/{recipe.epochs}",
        unit="img",
        unit_scale=True,
        leave=False,
        disable=not shown,
        mininterval=0.5 if sys.stderr.isatty() else 30,
    )


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02} h"


def parse_options(argv: Sequence[str] | None) -> TrainOptions:
    """Flags over the preset's values over the defaults."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    preset = CliApp.run(TrainOptions, cli_args=arguments).preset
    return CliApp.run(TrainOptions, cli_args=arguments, **PRESETS[preset])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 2 where the run could not start, 130 after Ctrl-C."""
    try:
        train(parse_options(argv))
    except ValidationError as error:
        print(f"perceiver train: {explain(error)}", file=sys.stderr)
        return 2
    except (TrainError, DatasetError) as error:
        print(f"perceiver train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The last whole epoch is kept: go on with --resume.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
