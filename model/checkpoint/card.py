"""card.json: everything about a checkpoint but its weights."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.checkpoint.calibration import Calibration
from model.checkpoint.config import PerceiverConfig, Preprocessing, TrainConfig

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


VERSION_PATTERN = r"^\d+\.\d+\.\d+$"  # semantic version


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassFigures(_Part):
    """Figures of one class."""

    label: str
    n: int = Field(ge=0, description="images of this class")
    recall: float = Field(ge=0, le=1, description="of this class' images, the share read as it")
    precision: float = Field(ge=0, le=1, description="of the images read as it, the share right")


class Evaluation(_Part):
    """Figures of a model on one part of a data set."""

    n: int = Field(ge=1, description="images")
    errors: int = Field(ge=0, description="images misread")
    accuracy: float = Field(ge=0, le=1)
    nll: float = Field(ge=0, description="mean negative log-likelihood in nats, calibrated")
    ece: float = Field(ge=0, le=1, description="expected calibration error, 15 equal-mass bins")
    per_class: tuple[ClassFigures, ...]


class NoveltyFigures(_Part):
    """How often a digit is taken for novel, at the threshold of 0.5."""

    validation_false_alarms: float = Field(ge=0, le=1, description="share that set the threshold")
    test_false_alarms: float = Field(ge=0, le=1, description="share on the test set")


class DatasetInfo(_Part):
    """What the model was trained, chosen and tested on."""

    name: str
    sha256: str = Field(description="digest of the data set's files")
    train: int = Field(ge=1, description="training images")
    validation: int = Field(ge=1, description="held-out training images that chose")
    test: int = Field(ge=0, description="test images, scored once at the end")


class TrainingRecord(_Part):
    """How the weights came about."""

    recipe: TrainConfig
    started_from: str | None = Field(None, description="name and version; none: random weights")
    chosen_epoch: int = Field(ge=1, description="whose averaged weights validation picked")
    seconds: float = Field(ge=0, description="time spent in epochs")
    environment: dict[str, str] = Field(description="hardware and library versions")


class Card(_Part):
    """card.json: everything about a checkpoint but its weights."""

    name: str = Field(pattern=NAME_PATTERN)
    version: str = Field(pattern=VERSION_PATTERN, description="semantic version")
    created: str = Field(description="ISO 8601, UTC")
    parameters: int = Field(ge=1, description="learned numbers in the model")
    model: PerceiverConfig
    labels: tuple[str, ...] = Field(min_length=1, description="class names in output order")
    preprocessing: Preprocessing
    calibration: Calibration
    metrics: dict[str, Evaluation] = Field(description="by part: validation, test")
    novelty: NoveltyFigures
    dataset: DatasetInfo
    training: TrainingRecord
    files: dict[str, str] = Field({}, description="SHA-256 of each other file of the folder")

    @model_validator(mode="after")
    def _labels_match_model(self) -> "Card":
        if len(self.labels) != self.model.num_features:
            raise ValueError(
                f"{len(self.labels)} labels for a model of {self.model.num_features} classes"
            )
        return self
