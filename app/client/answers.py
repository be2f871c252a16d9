"""What the service answers, made of its JSON; other JSON raises pydantic's ValidationError."""

from typing import Any

from pydantic import AliasPath, BaseModel, ConfigDict, Field, model_validator


class Answer(BaseModel):
    """An answer or a part of one."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


class Prediction(Answer):
    """What the model reads in one image."""

    digit: int | None = None  # the label as a number, if it is one
    label: str
    confidence: float
    probabilities: tuple[float, ...]
    recognized: bool
    novelty: float

    @property
    def numbers(self) -> dict[str, int | None]:
        """That the label stands for, by name."""
        return {"digit": self.digit}


class _Predicted(Answer):
    """What is told beside a prediction's own fields, which the JSON has in the same object."""

    prediction: Prediction

    @model_validator(mode="before")
    @classmethod
    def _hold_prediction(cls, answer: Any) -> Any:
        return {"prediction": answer, **answer} if isinstance(answer, dict) else answer


class BlockAttention(Answer):
    """Where one block's latents looked; maps are rows of numbers that sum to 1."""

    mean: list[list[float]]
    latents: list[list[list[float]]]


class Explanation(_Predicted):
    """A prediction, what the model saw, where it looked, and the ink that the answer rests on."""

    input: list[list[int]]
    # The mean of all blocks and latents.
    attention: list[list[float]] = Field(validation_alias=AliasPath("attention", "mean"))
    blocks: tuple[BlockAttention, ...] = Field(validation_alias=AliasPath("attention", "blocks"))
    # In nats; see `method`.
    attribution: list[list[float]] = Field(validation_alias=AliasPath("attribution", "map"))
    method: str = Field(validation_alias=AliasPath("attribution", "method"))


class Box(Answer):
    """In pixels of the upright picture, from its top left corner."""

    x: float
    y: float
    width: float
    height: float


class PlacedPart(_Predicted):
    """One part of a picture, such as a digit of a number."""

    box: Box


class Line(Answer):
    """One line of a picture."""

    text: str
    confidence: float
    digits: tuple[PlacedPart, ...]


class Number(Answer):
    """What a picture says."""

    text: str
    lines: tuple[Line, ...]
    width: int
    height: int


class Refusal(Answer):
    """In the place of an image of a batch that can't be read."""

    error: dict[str, Any]


class Batch(Answer):
    """Of several images, in their order."""

    predictions: list[Prediction | Refusal]


class Limits(Answer):
    """Bounds on requests."""

    max_bytes: int
    max_pixels: int
    max_files: int
    max_body_bytes: int


class Metadata(Answer):
    """The model and what serves it."""

    name: str = Field(validation_alias=AliasPath("card", "name"))
    version: str = Field(validation_alias=AliasPath("card", "version"))
    labels: tuple[str, ...] = Field(validation_alias=AliasPath("card", "labels"))
    engine: str = Field(validation_alias=AliasPath("engine", "name"))
    device: str = Field(validation_alias=AliasPath("engine", "device"))
    limits: Limits
    card: dict[str, Any]
