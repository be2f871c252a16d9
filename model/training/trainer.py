"""Training itself: one object that holds all that an epoch changes.

All randomness of an epoch follows from the seed and its number, so a restored trainer repeats an
uninterrupted one.
"""

import copy
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters
from tqdm import tqdm

from model.checkpoint.calibration import Calibration
from model.checkpoint.card import InputSpec
from model.checkpoint.config import PerceiverConfig, TrainConfig
from model.checkpoint.history import Epoch
from model.data.labelled import Labelled
from model.evaluation.predictions import predict_logits
from model.evaluation.scores import score
from model.network.perceiver import Perceiver
from model.network.recognizer import InputClassifier
from model.training.runtime import Runtime, TrainError

if TYPE_CHECKING:
    from model.modalities.training import Augment, Options


@dataclass(frozen=True)
class Plan:
    """What a run trains, and how."""

    model: PerceiverConfig  # the network
    spec: InputSpec  # its input
    class_names: Sequence[str]  # in the order of its outputs
    recipe: TrainConfig  # of the training
    options: "Options"  # the modality's own part of the recipe
    augment: "Augment"  # changes a batch, by these options

    def recorded(self) -> dict[str, dict[str, Any]]:
        """What a resumed run must have in common with itself, for JSON."""
        parts = {"config": self.model, "recipe": self.recipe, "options": self.options}
        return {name: part.model_dump(mode="json") for name, part in parts.items()}

    def check(self) -> None:
        """Makes sure that the network fits the data.

        Raises:
            TrainError: it does not.
        """
        for name, needed in (
            ("num_channels", self.spec.channels),
            ("input_shape", self.spec.shape),
            ("num_features", len(self.class_names)),
        ):
            actual = getattr(self.model, name)
            if actual != needed:
                raise TrainError(f"{name} is {actual}, but the data needs {needed}")


@dataclass
class Trainer:
    """Training itself: one object holds all that an epoch changes."""

    plan: Plan  # what is trained, and how
    train: Labelled  # samples to learn from; a batch at a time is on the device
    validation: Labelled  # samples that choose the epoch
    runtime: Runtime  # where it runs
    history: list[Epoch] = field(default_factory=list)  # of the epochs so far
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # those of the best of them

    def __post_init__(self) -> None:
        recipe, runtime = self.plan.recipe, self.runtime
        self.plan.check()
        if recipe.batch_size % runtime.processes:
            raise TrainError(f"batch size {recipe.batch_size} is no multiple of the processes")
        if len(self.train) < recipe.batch_size:
            raise TrainError(f"{len(self.train)} training samples are less than one batch")
        self.steps_per_epoch = len(self.train) // recipe.batch_size
        torch.manual_seed(recipe.seed)
        self.perceiver = Perceiver(**self.plan.model.arguments()).to(runtime.device)
        self.averaged = copy.deepcopy(self.perceiver).requires_grad_(False)
        self.parameters: list[Tensor] = list(self.perceiver.parameters())
        decayed = [p for p in self.parameters if p.ndim >= 2 and p is not self.perceiver.latents]
        others = [p for p in self.parameters if p.ndim < 2 or p is self.perceiver.latents]
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.classifier = InputClassifier(self.perceiver, self.plan.spec)
        self.step = torch.compile(self._losses) if runtime.compile else self._losses

    @property
    def best(self) -> Epoch:
        """The epoch that validation picks: least loss, which is less noisy than accuracy."""
        return min(self.history, key=lambda e: e.validation_loss)

    def run_epoch(self, progress: bool = False) -> Epoch:
        """Trains one epoch and scores the averaged weights on the validation samples."""
        started = time.perf_counter()
        number = len(self.history) + 1
        loss, accuracy = self._train_epoch(number, progress)
        classifier = InputClassifier(self.averaged, self.plan.spec).eval()
        logits = predict_logits(classifier, self.validation.inputs)
        figures = score(
            logits, self.validation.labels, self.plan.class_names, Calibration(temperature=1.0)
        )
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
            **self.plan.recorded(),
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
        for part, ours in self.plan.recorded().items():
            theirs = state[part]
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
        """Loss and accuracy over the epoch's augmented samples."""
        recipe, runtime = self.plan.recipe, self.runtime
        self.perceiver.train()
        generator = torch.Generator(runtime.device)
        generator.manual_seed(recipe.seed * 1_000_003 + number)
        torch.manual_seed((recipe.seed * 1_000_003 + number) * 1009 + runtime.rank)  # for dropout
        shuffled = torch.randperm(len(self.train), generator=generator, device=runtime.device)
        order = shuffled.cpu().numpy()
        totals = torch.zeros(2, device=runtime.device)  # loss, accuracy
        with tqdm(
            total=self.steps_per_epoch * recipe.batch_size,
            desc=f"epoch {number}/{recipe.epochs}",
            unit="sample",
            unit_scale=True,
            leave=False,
            disable=not progress,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        ) as bar:
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

    def _train_step(self, batch: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        """One update from the samples with indices `batch`; returns (loss, accuracy)."""
        plan, runtime = self.plan, self.runtime
        # Every process changes the joint batch alike and takes its share of it.
        inputs = self._on_device(self.train.inputs[batch]).float()
        inputs = plan.augment(inputs, plan.options, generator)
        share = slice(runtime.rank, None, runtime.processes)
        labels = self._on_device(self.train.labels[batch[share]])
        loss, accuracy = self.step(inputs[share], labels)
        loss.backward()
        if runtime.processes > 1:
            self._average_gradients()
        clip_grad_norm_(self.parameters, plan.recipe.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._average_weights()
        return torch.stack([loss.detach(), accuracy])

    def _on_device(self, samples: NDArray[Any]) -> Tensor:
        """Samples on the way to the device; from pinned memory the copy waits for nothing."""
        tensor = torch.from_numpy(samples)
        if self.runtime.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.runtime.device, non_blocking=True)

    def _losses(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss to descend and accuracy of a batch (B, C, *shape)."""
        with torch.autocast(
            self.runtime.device.type, torch.bfloat16, enabled=self.runtime.bfloat16
        ):
            logits = self.classifier(inputs).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.plan.recipe.label_smoothing)
        return loss, (logits.argmax(dim=1) == labels).float().mean()

    def _set_learning_rate(self, step: int) -> None:
        """Linear warm-up, then a cosine that would reach 0 one step after the last."""
        recipe = self.plan.recipe
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
