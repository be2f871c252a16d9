"""Modalities: kinds of input, one file or folder each, behind one protocol.

A modality decodes files, brings them into the network's form, and shows them to a person. The
network, training, engines and wire contracts know none by name. Serving imports no torch here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray
from PIL import Image

from model.checkpoint.card import InputSpec

if TYPE_CHECKING:
    from model.modalities.training import Training, TrainingFlags

MODALITIES = ("digits",)

Sample = TypeVar("Sample")  # what decoding a file gives: a picture, an array, a row


class InputError(Exception):
    """A file can't be read; the message tells its sender why."""


class EmptyInputError(InputError):
    """The file has no bytes."""


class UnsupportedInputError(InputError):
    """The file is of no type that the modality reads."""


class InputTooLargeError(InputError):
    """The file's header announces more than may be decoded."""


class InputTooCostlyError(InputError):
    """To decode the file would take more work or memory than its size should."""


class UnreadableInputError(InputError):
    """The file's type is known, but its content is truncated or broken."""


class TooManyPartsError(InputError):
    """The sample shows more parts than are worth looking for."""


@dataclass(frozen=True)
class Limits:
    """What decoding one file may cost."""

    pixels: int  # positions of the sample, at most


@dataclass(frozen=True)
class Cost:
    """What decoding one file takes, as its header announces."""

    pixels: int  # work, in positions of an ordinary sample
    is_tiny: bool = False  # proved to take less time than to hand the file to another process


@dataclass(frozen=True)
class LabelNumber:
    """A whole number that a label stands for, told in answers beside it."""

    description: str  # for people
    minimum: int  # of the number
    maximum: int  # of the number
    of: Callable[[str], int | None]  # label -> its number, none for a label that is no number


class Modality(Protocol[Sample]):
    """A kind of input."""

    name: str  # stands in the card
    suffixes: tuple[str, ...]  # of files that it reads, in lower case with their dot
    media_types: tuple[str, ...]  # that an upload may have; `*` as subtype is any
    formats: tuple[str, ...]  # of files that it reads, as people call them
    note: str  # what a person who uploads should know, in one sentence
    numbers: Mapping[str, LabelNumber]  # that labels stand for, by their names in answers

    def decode(self, content: bytes, limits: Limits) -> Sample:
        """Reads a whole file.

        Raises:
            InputError: one subclass per cause.
        """
        ...

    def cost(self, content: bytes, limits: Limits) -> Cost:
        """What decoding a whole file will take, in a fraction of a millisecond.

        Raises:
            InputError: more than the limits, or the file can't be read.
        """
        ...

    def prepare(self, sample: Sample, spec: InputSpec) -> NDArray[Any]:
        """Brings a sample into the network's form (C, *shape)."""
        ...

    def picture(self, prepared: NDArray[Any], spec: InputSpec) -> Image.Image:
        """Shows a prepared sample (C, *shape) to a person."""
        ...

    def flags(self) -> "TrainingFlags":
        """What the modality adds to the flags of a training run; imports no torch."""
        ...

    def training(self) -> "Training":
        """What the modality adds to training; imports what that takes."""
        ...


@dataclass(frozen=True)
class ChosenPart:
    """A candidate that is a part of the sample."""

    index: int  # among the candidates
    box: tuple[float, float, float, float]  # x, y, width, height in pixels of the sample


class FoundParts(Protocol):
    """What may be parts of a sample, before and after the model has read them."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sample in pixels."""
        ...

    @property
    def inputs(self) -> Sequence[NDArray[Any]]:
        """The candidates in the network's form (C, *shape), possibly overlapping."""
        ...

    def choose(self, probabilities: NDArray[Any], novelty: NDArray[Any]) -> list[list[ChosenPart]]:
        """The best reading, line by line, each from left to right.

        The model's probabilities are (N, classes), its novelty (N,), of the N candidates.
        """
        ...


# A whole file, limits -> what may be its parts; raises InputError.
FindParts = Callable[[bytes, Limits], FoundParts]


@runtime_checkable
class HasParts(Protocol):
    """A modality whose samples may show several things, each to be read alone."""

    def find_parts(self, learned: Mapping[str, bytes], spec: InputSpec) -> FindParts | None:
        """A function that finds parts in the input's form, by the checkpoint's files for this.

        Returns: none where the checkpoint lacks a file.

        Raises:
            ValueError: a file holds something else than it should.
        """
        ...


@cache
def find(name: str) -> Modality[Any]:
    """The modality of a name.

    Raises:
        KeyError: there is none; the message names those that there are.
    """
    if name not in MODALITIES:
        raise KeyError(f"there is no modality {name!r}; there is {', '.join(MODALITIES)}")
    modality: Modality[Any] = import_module(f"model.modalities.{name}").MODALITY
    return modality
