"""Trains a Perceiver: `python -m model.train`, also under torchrun.

Keeps its state in a run folder after every epoch; ends with a checkpoint folder.
"""

import argparse
import contextlib
import os
import pickle
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from tqdm import tqdm

from model import plots
from model.checkpoint import (
    NAME_PATTERN,
    VERSION_PATTERN,
    CheckpointError,
    TrainingRecord,
    check_replaceable,
    load_perceiver,
    read_checkpoint,
    write_checkpoint,
)
from model.config import PerceiverConfig, Preprocessing, TrainConfig, explain
from model.datasets import MNIST, DatasetError, LabelledImages, load_mnist, split
from model.device import DeviceError, find_device
from model.evaluate import table
from model.finish import finish
from model.perceiver import Perceiver
from model.served_digits import served_digits
from model.trainer import Runtime, Trainer, TrainError

STATE_FILE = "state.pt"

SHIPPED_MODEL: dict[str, Any] = {
    "depth": 2,
    "fourier_bands": 6,
    "num_latents": 8,
    "latent_dim": 192,
    "self_per_cross_atn": 1,
    "cross_heads": 16,
    "mlp_ratio": 2,
    "input_adapter": "convolution",
    "adapter_channels": 64,
}

PRESETS: dict[str, dict[str, Any]] = {
    "mnist": {
        "model": SHIPPED_MODEL,
        "recipe": {"epochs": 80, "learning_rate": 2e-3, "ema_decay": 0.9995},
    },
    "served": {
        "start_from": Path("weights/perceiver-mnist"),
        "run_folder": Path("runs/served"),
        "model": SHIPPED_MODEL,
        "recipe": {
            "epochs": 10,
            "learning_rate": 7e-4,
            "ema_decay": 0.9995,
            "uploads": 24_000,
            "strips": 4_000,
        },
    },
    "smoke": {
        "name": "perceiver-smoke",
        "compile": False,
        "model": {"depth": 1, "self_per_cross_atn": 1, "cross_heads": 4},
        "recipe": {
            "epochs": 2,
            "batch_size": 64,
            "learning_rate": 3e-3,
            "warmup_steps": 20,
            "ema_decay": 0.98,
            "train_images": 8000,
            "validation_images": 1000,
            "outliers": 50,
        },
    },
}


def _can_compile() -> bool:
    """Whether torch.compile finds what it builds kernels with: a compiler and Python's headers."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return shutil.which("g++") is not None and headers.exists()


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

    preset: Literal["mnist", "served", "smoke"] = Field(
        "mnist",
        description="starting values: mnist; served, which goes on from there with digits as the "
        "service meets them; smoke (within a minute on 2 cores)",
    )
    data: Path | None = Field(None, description="folder of MNIST's IDX files; else downloaded")
    name: str = Field("perceiver-mnist", pattern=NAME_PATTERN, description="the checkpoint's name")
    version: str = Field(
        "1.0.0", pattern=VERSION_PATTERN, description="the checkpoint's semantic version"
    )
    out: Path | None = Field(None, description="checkpoint folder; default weights/NAME")
    run_folder: Path | None = Field(
        None, description="folder of the run's state; default runs/NAME"
    )
    start_from: Path | None = Field(
        None, description="checkpoint folder whose weights the run starts from; else random ones"
    )
    resume: bool = Field(False, description="go on with the run in the run folder")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of matrix products in training; auto: bfloat16 where it is native"
    )
    compile: bool = Field(
        default_factory=_can_compile,
        description="compile the training step; by default where a C++ compiler is at hand",
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


def train(options: TrainOptions) -> Path:
    """Runs or resumes a training to its end; returns the checkpoint folder.

    Raises:
        TrainError: the run cannot start or go on.
        DatasetError: the data set cannot be had.
        DeviceError: the device is not there.
        CheckpointError: the checkpoint would replace something else.
    """
    recipe = options.recipe
    out = options.out or Path("weights") / options.name
    run = options.run_folder or Path("runs") / options.name
    check_replaceable(out)
    with open_runtime(options) as runtime:
        mnist = load_mnist(options.data)
        kept, validation = split(mnist.train, recipe.validation_images, recipe.seed)
        if recipe.train_images is not None:
            kept = kept.take(np.arange(min(recipe.train_images, len(kept))))
        shown = kept
        if recipe.uploads or recipe.strips:
            shown = kept.joined(_served(kept, recipe, run, options.resume, runtime))
        trainer = Trainer(options.model, recipe, shown, validation, mnist.class_names, runtime)
        started_from = _start_from(trainer, options.start_from) if options.start_from else None
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
            _finish(trainer, kept, mnist, started_from, options, out)
    return out


def _served(
    digits: LabelledImages, recipe: TrainConfig, run: Path, resume: bool, runtime: Runtime
) -> LabelledImages:
    """Digits as the service meets them, kept in the run folder: they take minutes to make."""
    path = run / "served.npz"
    if not (resume and path.exists()) and runtime.leads:
        made = served_digits(
            digits, recipe.uploads, recipe.strips, Preprocessing(), recipe.seed, progress=True
        )
        run.mkdir(parents=True, exist_ok=True)
        partial = run / "served.partial.npz"
        np.savez(partial, images=made.images, labels=made.labels)
        partial.replace(path)
    if runtime.processes > 1:
        dist.barrier()
    with np.load(path) as arrays:
        return LabelledImages(arrays["images"], arrays["labels"])


def _start_from(trainer: Trainer, folder: Path) -> str:
    """Takes over a checkpoint's weights; returns its name and version."""
    checkpoint = read_checkpoint(folder)
    card = checkpoint.card
    if card.model != trainer.config:
        raise TrainError(f"{folder} holds another model: give its flags, or start from another")
    weights = load_perceiver(checkpoint).state_dict()
    for perceiver in (trainer.perceiver, trainer.averaged):
        perceiver.load_state_dict(weights)
    return f"{card.name} {card.version}"


def _finish(
    trainer: Trainer,
    kept: LabelledImages,
    mnist: MNIST,
    started_from: str | None,
    options: TrainOptions,
    out: Path,
) -> None:
    """Finishes the weights that validation picked and writes the checkpoint."""
    perceiver = Perceiver(**trainer.config.arguments())
    perceiver.load_state_dict({k: v.cpu() for k, v in trainer.best_weights.items()})
    record = TrainingRecord(
        recipe=trainer.recipe,
        started_from=started_from,
        chosen_epoch=trainer.best.epoch,
        seconds=sum(epoch.seconds for epoch in trainer.history),
        environment=trainer.runtime.environment(),
    )
    card, files = finish(
        perceiver,
        trainer.config,
        trainer.preprocessing,
        kept,
        trainer.validation,
        mnist,
        record,
        options.name,
        options.version,
    )
    history = "".join(epoch.model_dump_json() + "\n" for epoch in trainer.history)
    files["history.jsonl"] = history.encode()
    files["plots/training.png"] = plots.training_curves(trainer.history)
    write_checkpoint(out, card, files)
    read_checkpoint(out)  # what was written can be read again
    print(f"\nTest set, scored once:\n{table(card.metrics['test'])}\n\nCheckpoint: {out}")


@contextlib.contextmanager
def open_runtime(options: TrainOptions) -> Iterator[Runtime]:
    """Finds the device; joins the other processes where torchrun started several."""
    rank, local_rank, processes = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))
    )
    device = find_device(options.device, local_rank)
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


def _take_up(trainer: Trainer, run: Path, resume: bool) -> None:
    """Restores the state of an unfinished run, if one is there and that is wanted."""
    path = run / STATE_FILE
    if not path.exists():
        if resume:
            print(f"There is nothing to resume in {run}: starting anew.")
        return
    try:
        state = torch.load(path, map_location=trainer.runtime.device, weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise TrainError(f"{path} can't be read: {error}") from error
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
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
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


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02} h"


def parse_options(argv: Sequence[str] | None) -> TrainOptions:
    """Flags over the preset's values over the defaults."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="mnist")
    preset = first.parse_known_args(arguments)[0].preset
    return CliApp.run(TrainOptions, cli_args=arguments, **PRESETS.get(preset, {}))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 2 where the run could not start, 130 after Ctrl-C."""
    try:
        train(parse_options(argv))
    except ValidationError as error:
        print(f"perceiver train: {explain(error)}", file=sys.stderr)
        return 2
    except (TrainError, DatasetError, DeviceError, CheckpointError) as error:
        print(f"perceiver train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. Whole epochs are kept: go on with --resume.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
