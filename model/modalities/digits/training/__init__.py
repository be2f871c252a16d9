"""What digits add to training: options, augmentation, made samples, and the learning of parts.

`TRAINING` imports no torch before one of its functions is called, for flags come from it, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from model.modalities.digits.modality import SPEC
from model.modalities.digits.training.options import PRESETS, DigitOptions
from model.modalities.training import NoveltySamples, Training

if TYPE_CHECKING:
    import torch

    from model.checkpoint.card import InputSpec
    from model.data.labelled import Dataset, Labelled
    from model.evaluation.suite import Subject, Suite


def _load(folder: Path | None) -> "Dataset":
    from model.data.mnist import load_mnist

    return load_mnist(folder, SPEC)


def _augment(
    images: "torch.Tensor", options: DigitOptions, generator: "torch.Generator"
) -> "torch.Tensor":
    from model.modalities.digits.training.augment import augment

    return augment(images, options.augment, generator)


def _extra(
    digits: "Labelled",
    spec: "InputSpec",
    options: DigitOptions,
    learned: Mapping[str, bytes],
    seed: int,
) -> "Labelled | None":
    from model.modalities.digits.training.as_served import served_digits

    return served_digits(digits, spec, options, learned, seed, progress=True)


def _unlike(
    digits: "Labelled", spec: "InputSpec", options: DigitOptions, seed: int
) -> NoveltySamples:
    from model.modalities.digits.training.novelty_samples import novelty_samples

    return novelty_samples(digits, spec, options.outliers, seed)


def _suites() -> Mapping[str, "Suite"]:
    from model.modalities.digits.suites import SUITES

    return SUITES


def _fit_parts(subject: "Subject", seed: int) -> Mapping[str, bytes]:
    from model.modalities.digits.training.parts import fit_parts

    return fit_parts(subject, seed)


TRAINING = Training(
    options=DigitOptions,
    presets=PRESETS,
    load=_load,
    augment=_augment,
    unlike=_unlike,
    suites=_suites,
    extra=_extra,
    fit_parts=_fit_parts,
)
