"""Trains a Perceiver: `python -m model.training.train`, also under torchrun.

Keeps its state in a run folder after every epoch; ends with a checkpoint folder.
"""

import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pydantic import ValidationError
from tqdm import tqdm

from model.checkpoint.card import TrainingRecord
from model.checkpoint.config import Preprocessing, TrainConfig, validation_sentence
from model.checkpoint.folder import (
    CheckpointError,
    check_replaceable,
    read_checkpoint,
    write_checkpoint,
)
from model.data.labelled import DatasetError, LabelledImages, split
from model.data.mnist import MNIST, load_mnist
from model.evaluation import plots
from model.evaluation.scores import table
from model.modalities.digits.training.as_served import served_digits
from model.network.device import DeviceError
from model.network.perceiver import Perceiver
from model.network.recognizer import load_perceiver
from model.training.finish import finish
from model.training.options import TrainOptions, parse_options
from model.training.runtime import Runtime, TrainError, open_runtime
from model.training.trainer import Trainer

STATE_FILE = "state.pt"


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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 2 where the run could not start, 130 after Ctrl-C."""
    try:
        train(parse_options(argv))
    except ValidationError as error:
        print(f"perceiver train: {validation_sentence(error)}", file=sys.stderr)
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
