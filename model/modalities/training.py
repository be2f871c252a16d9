"""What a modality adds to training, behind one protocol; the service never imports it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from pydantic import Field

from model.checkpoint.config import Frozen

if TYPE_CHECKING:
    import torch

    from model.checkpoint.card import InputSpec
    from model.data.labelled import Dataset, Labelled
    from model.evaluation.suite import Subject, Suite


class Options(Frozen):
    """A modality's own part of the recipe; each field is a flag, and stands in the card."""


class WarpRanges(Options):
    """How far `model.data.warp` may change a picture."""

    rotate_degrees: float = Field(30.0, ge=0, le=180, description="rotation, either way")
    shear: float = Field(0.45, ge=0, le=1, description="horizontal shear, either way")
    scale: float = Field(0.15, ge=0, lt=1, description="relative change of each axis' size")
    shift: float = Field(0.1, ge=0, le=1, description="shift in half image sizes")
    elastic_pixels: float = Field(0.7, ge=0, description="elastic warp's typical displacement")
    elastic_knots: int = Field(6, ge=2, description="random displacements along each axis")


@dataclass(frozen=True)
class NoveltySamples:
    """Samples in the network's form (N, C, *shape) that teach what is novel."""

    known: NDArray[Any]  # of the classes, as the network was taught; shown augmented, too
    known_otherwise: NDArray[Any]  # of the classes in other guises; shown as they are
    unlike: NDArray[Any]  # of no class; shown augmented, too


@dataclass(frozen=True)
class Preset:
    """Starting values of a run's flags, by the names of the fields of `Train`."""

    description: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingFlags:
    """What a modality adds to the flags of a training run; telling them imports no torch."""

    options: type[Options]  # the modality's own part of the recipe
    presets: Mapping[str, Preset]  # starting values of runs, by name; the first is the default


# Folder or file, none: the modality's own source -> all parts of a data set.
Load = Callable[[Path | None], "Dataset"]
# Batch (B, C, *shape) float32 in the input's values, options, generator -> the same, changed. The
# batch is in random order.
Augment = Callable[["torch.Tensor", Any, "torch.Generator"], "torch.Tensor"]
# Training samples, spec, options, files for finding parts, seed -> more of them, or none.
Extra = Callable[["Labelled", "InputSpec", Any, Mapping[str, bytes], int], "Labelled | None"]
# Training samples, spec, options, seed -> what the novelty head learns from.
Unlike = Callable[["Labelled", "InputSpec", Any, int], NoveltySamples]
# Checkpoint and data set, seed -> the checkpoint's files for finding parts, by name.
FitParts = Callable[["Subject", int], Mapping[str, bytes]]


@dataclass(frozen=True)
class Training:
    """What a modality adds to training."""

    load: Load  # reads a data set
    augment: Augment  # changes a batch of training samples at random
    unlike: Unlike  # makes samples that novelty is learned from
    suites: Mapping[str, "Suite"]  # measurements beyond the test set, by name
    extra: Extra | None = None  # makes more training samples
    fit_parts: FitParts | None = None  # learns to find the parts of a sample
