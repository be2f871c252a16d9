"""What a modality adds to training, behind one protocol; the service never imports it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from pydantic import BaseModel

if TYPE_CHECKING:
    import torch

    from model.checkpoint.card import InputSpec
    from model.data.labelled import Dataset, Labelled
    from model.evaluation.suite import Suite

# Folder or file, none: the modality's own source -> all parts of a data set.
Load = Callable[[Path | None], "Dataset"]
# Batch (B, C, *shape) float32 in the input's values, options, generator -> the same, changed.
Augment = Callable[["torch.Tensor", Any, "torch.Generator"], "torch.Tensor"]
# Training samples, spec, options, seed, whether to show progress -> more of them, or none.
Extra = Callable[["Labelled", "InputSpec", Any, int, bool], "Labelled | None"]
# Training samples, spec, options, seed -> what the novelty head learns from.
Unlike = Callable[["Labelled", "InputSpec", Any, int], "NoveltySamples"]


@dataclass(frozen=True)
class NoveltySamples:
    """Samples in the network's form (N, C, *shape) that teach what is novel.

    Attributes:
        known: of the classes, as the network was taught; shown augmented, too.
        known_otherwise: of the classes in other guises; shown as they are.
        unlike: of no class; shown augmented, too.
    """

    known: NDArray[Any]
    known_otherwise: NDArray[Any]
    unlike: NDArray[Any]


@dataclass(frozen=True)
class Preset:
    """Starting values of a run's options, by the names of their fields."""

    description: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """What a modality adds to training.

    Attributes:
        options: the modality's own part of the recipe, as validated data; each field is a flag.
        load: reads a data set.
        augment: changes a batch of training samples at random.
        extra: makes more training samples.
        unlike: makes samples that novelty is learned from.
        suites: measurements beyond the test set, by name.
        presets: starting values of runs, by name; the first is the default.
    """

    options: type[BaseModel]
    load: Load
    augment: Augment
    extra: Extra | None
    unlike: Unlike
    suites: Mapping[str, "Suite"]
    presets: Mapping[str, Preset]
