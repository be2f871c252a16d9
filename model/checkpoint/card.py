"""card.json: everything about a checkpoint but its weights."""

from typing import Literal

from pydantic import Field, JsonValue, model_validator

from model.checkpoint.calibration import Calibration
from model.checkpoint.config import Frozen, PerceiverConfig, TrainConfig

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
VERSION_PATTERN = r"^\d+\.\d+\.\d+$"  # semantic version


class InputSpec(Frozen):
    """One named input of a model: the arrays that it takes, and the modality that makes them.

    The network sees `(value - mean) / std`; values of dtype uint8 are shares of 255 before that.
    """

    name: str = Field(pattern=NAME_PATTERN, description="in the graph and in requests")
    modality: str = Field(description="name of the modality that reads its files")
    channels: int = Field(ge=1, description="values at each position")
    shape: tuple[int, ...] = Field(min_length=1, description="lengths of its axes")
    dtype: Literal["uint8", "float32"] = Field(description="type of its values")
    mean: float = Field(0.0, description="subtracted from each value")
    std: float = Field(1.0, gt=0, description="by which each value is divided then")
    options: dict[str, JsonValue] = Field({}, description="the modality's own")

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Of one sample: (C, *shape)."""
        return (self.channels, *self.shape)

    @property
    def unit(self) -> float:
        """The value that counts as 1."""
        return 255.0 if self.dtype == "uint8" else 1.0


class ClassFigures(Frozen):
    """Figures of one class."""

    label: str
    n: int = Field(ge=0, description="samples of this class")
    recall: float = Field(ge=0, le=1, description="of this class' samples, the share read as it")
    precision: float = Field(ge=0, le=1, description="of the samples read as it, the share right")


class Evaluation(Frozen):
    """Figures of a model on one part of a data set."""

    n: int = Field(ge=1, description="samples")
    errors: int = Field(ge=0, description="samples misread")
    accuracy: float = Field(ge=0, le=1)
    nll: float = Field(ge=0, description="mean negative log-likelihood in nats, calibrated")
    ece: float = Field(ge=0, le=1, description="expected calibration error, 15 equal-mass bins")
    per_class: tuple[ClassFigures, ...]


class NoveltyFigures(Frozen):
    """How often a sample of a known class is taken for novel, at the threshold of 0.5."""

    validation_false_alarms: float = Field(ge=0, le=1, description="share that set the threshold")
    test_false_alarms: float = Field(ge=0, le=1, description="share on the test set")


class DatasetInfo(Frozen):
    """What the model was trained, chosen and tested on."""

    name: str
    sha256: str = Field(description="digest of the data set's files")
    train: int = Field(ge=1, description="training samples")
    validation: int = Field(ge=1, description="held-out training samples that chose")
    test: int = Field(ge=0, description="test samples, scored once at the end")


class TrainingRecord(Frozen):
    """How the weights came about."""

    recipe: TrainConfig
    options: dict[str, JsonValue] = Field({}, description="the modality's own part of the recipe")
    started_from: str | None = Field(None, description="name and version; none: random weights")
    chosen_epoch: int = Field(ge=1, description="whose averaged weights validation picked")
    seconds: float = Field(ge=0, description="time spent in epochs")
    environment: dict[str, str] = Field(description="hardware and library versions")


class Card(Frozen):
    """card.json: everything about a checkpoint but its weights."""

    name: str = Field(pattern=NAME_PATTERN)
    version: str = Field(pattern=VERSION_PATTERN, description="semantic version")
    created: str = Field(description="ISO 8601, UTC")
    parameters: int = Field(ge=1, description="learned numbers in the model")
    model: PerceiverConfig
    labels: tuple[str, ...] = Field(min_length=1, description="class names in output order")
    inputs: tuple[InputSpec, ...] = Field(min_length=1, max_length=1)
    calibration: Calibration
    metrics: dict[str, Evaluation] = Field(description="by part: validation, test")
    novelty: NoveltyFigures
    dataset: DatasetInfo
    training: TrainingRecord
    files: dict[str, str] = Field({}, description="SHA-256 of each other file of the folder")

    @property
    def input(self) -> InputSpec:
        """The only input."""
        return self.inputs[0]

    @model_validator(mode="after")
    def _fits_model(self) -> "Card":
        ours, theirs = self.input.array_shape, (self.model.num_channels, *self.model.input_shape)
        if ours != theirs:
            raise ValueError(f"input {self.input.name} is {ours}, the model takes {theirs}")
        if len(self.labels) != self.model.num_features:
            raise ValueError(
                f"{len(self.labels)} labels for a model of {self.model.num_features} classes"
            )
        return self
