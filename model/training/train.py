"""Trains a Perceiver, also under torchrun.

Keeps its state in a run folder after every epoch; ends with a checkpoint folder.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from model.checkpoint.card import TrainingRecord
from model.checkpoint.config import PerceiverConfig
from model.checkpoint.folder import (
    PARTS_FOLDER,
    Checkpoint,
    check_replaceable,
    read_checkpoint,
    write_checkpoint,
)
from model.data.labelled import Dataset, Labelled
from model.evaluation import plots
from model.evaluation.scores import table
from model.modalities import find
from model.network.perceiver import Perceiver
from model.network.recognizer import load_perceiver
from model.training.finish import Trained, finish
from model.training.options import Train
from model.training.runtime import TrainError, open_runtime
from model.training.trainer import Plan, Trainer

STATE_FILE = "state.pt"
EXTRA_FILE = "extra.npz"  # samples that the modality made: they take minutes


def train(options: Train) -> Path:
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
    training = find(options.modality).training()
    with open_runtime(options.device, options.precision, options.compile) as runtime:
        dataset = training.load(options.data)
        taught, validation = dataset.learning_parts(recipe)
        plan = Plan(
            model=_fitted(options.model, dataset),
            spec=dataset.spec,
            class_names=dataset.class_names,
            recipe=recipe,
            options=options.options,
            augment=training.augment,
        )
        start = read_checkpoint(options.start_from) if options.start_from else None
        learned = start.parts if start else {}
        path = run / EXTRA_FILE
        if runtime.leads and training.extra and not (options.resume and path.exists()):
            extra = training.extra(taught, plan.spec, plan.options, learned, recipe.seed)
            _keep_extra(extra, path)
        if runtime.processes > 1:
            dist.barrier()
        trainer = Trainer(plan, _with_extra(taught, path), validation, runtime)
        if start is not None:
            _start_from(trainer, start)
        _take_up(trainer, run, options.resume)
        if runtime.leads:
            print(_headline(trainer), flush=True)
        while len(trainer.history) < recipe.epochs:
            epoch = trainer.run_epoch(progress=runtime.leads)
            if runtime.leads:
                _save_state(trainer.state(), run)
                seconds = np.median([e.seconds for e in trainer.history])
                left = round(seconds * (recipe.epochs - epoch.epoch) / 60)
                tqdm.write(
                    f"epoch {epoch.epoch:>3}/{recipe.epochs}  loss {epoch.train_loss:.4f}  "
                    f"accuracy {epoch.train_accuracy:.2%}  "
                    f"validation {epoch.validation_accuracy:.2%} ({epoch.validation_loss:.4f})  "
                    f"{epoch.seconds:.0f} s, {left // 60}:{left % 60:02} h left"
                )
        if runtime.leads:
            _finish(trainer, dataset, start, options, out)
    return out


def _fitted(config: PerceiverConfig, dataset: Dataset) -> PerceiverConfig:
    """The network's configuration; the data tells what no flag does."""
    needed = {
        "num_channels": dataset.spec.channels,
        "input_shape": dataset.spec.shape,
        "num_features": len(dataset.class_names),
    }
    told = {name: value for name, value in needed.items() if name not in config.model_fields_set}
    return config.model_copy(update=told)


def _keep_extra(made: Labelled | None, path: Path) -> None:
    """Keeps what was made for when the run goes on, in place of what was kept before."""
    path.unlink(missing_ok=True)
    if made is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".partial-{path.name}")
        np.savez(partial, inputs=made.inputs, labels=made.labels)
        partial.replace(path)


def _with_extra(taught: Labelled, path: Path) -> Labelled:
    """Adds the samples that were kept, if any were."""
    if not path.exists():
        return taught
    with np.load(path) as arrays:
        return taught.joined(Labelled(arrays["inputs"], arrays["labels"]))


def _start_from(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Takes over a checkpoint's weights."""
    if checkpoint.card.model != trainer.plan.model:
        raise TrainError(
            f"{checkpoint.folder} holds another model: give its flags, or start from another"
        )
    weights = load_perceiver(checkpoint).state_dict()
    for perceiver in (trainer.perceiver, trainer.averaged):
        perceiver.load_state_dict(weights)


def _finish(
    trainer: Trainer, dataset: Dataset, start: Checkpoint | None, options: Train, out: Path
) -> None:
    """Finishes the weights that validation picked and writes the checkpoint."""
    plan, history = trainer.plan, trainer.history
    perceiver = Perceiver(**plan.model.arguments())
    perceiver.load_state_dict({k: v.cpu() for k, v in trainer.best_weights.items()})
    record = TrainingRecord(
        recipe=plan.recipe,
        options=plan.options.model_dump(mode="json"),
        started_from=f"{start.card.name} {start.card.version}" if start else None,
        chosen_epoch=trainer.best.epoch,
        seconds=sum(epoch.seconds for epoch in history),
        environment=trainer.runtime.environment(),
    )
    trained = Trained(perceiver, plan.model, plan.spec, record, options.name, options.version)
    card, files = finish(trained, dataset)
    if start is not None:
        files |= {f"{PARTS_FOLDER}{name}": content for name, content in start.parts.items()}
    files["history.jsonl"] = "".join(e.model_dump_json() + "\n" for e in history).encode()
    files["plots/training.png"] = plots.training_curves(history)
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
        f"{len(trainer.validation):,} validation samples; {environment['device']}, "
        f"{environment['precision']}{', compiled' * trainer.runtime.compile}; "
        f"epochs {len(trainer.history) + 1} to {trainer.plan.recipe.epochs}"
    )
