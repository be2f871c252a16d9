"""Digits behind the protocol of modalities."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint.card import InputSpec
from model.modalities import Cost, FindParts, LabelNumber, Limits, picture_header, pillow
from model.modalities.digits import form
from model.modalities.digits.reading.finder import DigitFinder

if TYPE_CHECKING:
    from model.modalities.training import Training, TrainingFlags

# MNIST's form, its mean and its standard deviation.
SPEC = InputSpec(
    name="image",
    modality="digits",
    channels=1,
    shape=(28, 28),
    dtype="uint8",
    mean=0.1307,
    std=0.3081,
)


class Digits:
    """One handwritten digit: grey, light strokes on black, centred."""

    name = SPEC.modality
    suffixes = pillow.SUFFIXES
    media_types = pillow.MEDIA_TYPES
    formats = picture_header.FORMATS
    note = "any size and mode, dark on light or light on dark: the service centres the digit"
    numbers: Mapping[str, LabelNumber] = {
        "digit": LabelNumber(
            "the label as a number, if it is a digit",
            minimum=0,
            maximum=9,
            of=lambda label: int(label) if len(label) == 1 and label in "0123456789" else None,
        )
    }

    def decode(self, content: bytes, limits: Limits) -> Image.Image:
        """Reads a picture file; see `model.modalities.pillow.decode`."""
        return pillow.decode(content, limits.pixels)

    def cost(self, content: bytes, limits: Limits) -> Cost:
        """What decoding a picture file will take; see `model.modalities.pillow.cost`."""
        return pillow.cost(content, limits.pixels)

    def prepare(self, sample: Image.Image, spec: InputSpec) -> NDArray[np.uint8]:
        """Brings a picture into the input's form (1, H, W); see `form.prepare`."""
        return form.prepare(sample, spec)

    def picture(self, prepared: NDArray[Any], spec: InputSpec) -> Image.Image:
        """Shows the digit (1, H, W) as dark strokes on white."""
        return Image.fromarray(255 - prepared[0])

    def find_parts(self, learned: Mapping[str, bytes], spec: InputSpec) -> FindParts | None:
        """A function that finds the digits of a number."""
        return DigitFinder.of(learned, spec)

    def flags(self) -> "TrainingFlags":
        """Of digits."""
        from model.modalities.digits.options import FLAGS

        return FLAGS

    def training(self) -> "Training":
        """Of digits; imports PyTorch, SciPy and matplotlib."""
        training: Training = import_module("model.modalities.digits.training").TRAINING
        return training


MODALITY = Digits()
