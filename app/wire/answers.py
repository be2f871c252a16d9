"""JSON bodies of the answers."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.inference.explainer import Explanation
from app.inference.predictor import Classification
from app.inference.reader import Reading as PlacedReading
from app.wire.problems import Problem
from model.checkpoint.card import Card

_SEVEN: dict[str, JsonValue] = {
    "digit": 7,
    "label": "7",
    "confidence": 0.9991,
    "probabilities": [
        0.0001,
        0.0001,
        0.0001,
        0.0001,
        0.0001,
        0.0001,
        0.0001,
        0.9991,
        0.0001,
        0.0001,
    ],
    "novelty": 0.02,
    "recognized": True,
}
_UNREADABLE: dict[str, JsonValue] = {
    "type": "/problems/unreadable-image",
    "title": "The image can't be decoded",
    "status": 422,
    "detail": "the PNG image is truncated or broken",
    "instance": "/predict/batch#1",
}
_MODEL: dict[str, JsonValue] = {"model": "perceiver-mnist", "version": "1.0.0"}


_FLAT: JsonValue = [[0.25, 0.25], [0.25, 0.25]]

Map = list[list[float]]  # rows of the input's size


class Reading(BaseModel):
    """What the model reads in one image."""

    model_config = ConfigDict(json_schema_extra={"example": _SEVEN})

    digit: int | None = Field(ge=0, le=9, description="the label as a number, if it is a digit")
    label: str = Field(description="the most probable class")
    confidence: float = Field(ge=0, le=1, description="its probability, calibrated")
    probabilities: list[float] = Field(description="of each class, in order; they sum to 1")
    novelty: float = Field(
        ge=0, le=1, description="how unlike the images of its classes that the model was taught"
    )
    recognized: bool = Field(
        description="false where novelty exceeds 0.5: this seems to show none of the classes"
    )

    @classmethod
    def of(cls, prediction: Classification) -> "Reading":
        """As the answer tells it."""
        return cls.model_construct(
            digit=prediction.numbers["digit"],
            label=prediction.label,
            confidence=prediction.confidence,
            probabilities=list(prediction.probabilities),
            novelty=prediction.novelty,
            recognized=prediction.recognized,
        )


class _FromModel(BaseModel):
    model: str = Field(description="name of the model")
    version: str = Field(description="its semantic version")


class PredictAnswer(_FromModel, Reading):
    """Answer of /predict."""

    model_config = ConfigDict(json_schema_extra={"example": {**_SEVEN, **_MODEL}})

    @classmethod
    def of_model(cls, prediction: Classification, card: Card) -> "PredictAnswer":
        """As the answer tells it, with the model's name."""
        reading = dict(Reading.of(prediction))
        return cls.model_construct(**reading, model=card.name, version=card.version)


class BlockAttention(BaseModel):
    """Where one block's latents looked."""

    mean: Map = Field(description="of its latents")
    latents: list[Map] = Field(description="each latent's, the mean over its heads")


class Attention(BaseModel):
    """Where the model looked: cross-attention over the pixels, each map of sum 1."""

    grid: list[int] = Field(
        description="rows and columns of the attention itself, which is interpolated to the pixels"
    )
    mean: Map = Field(description="of all blocks and latents")
    blocks: list[BlockAttention] = Field(description="in the order that they look")


class Attribution(BaseModel):
    """Which ink the answer rests on."""

    method: Literal["occlusion"] = Field(
        "occlusion", description="ink is deleted patch by patch, and the answer asked for again"
    )
    map: Map = Field(
        description="nats by which the answer's log-probability falls without this ink; negative "
        "where it speaks against the answer"
    )


class ExplainAnswer(PredictAnswer):
    """Answer of /explain."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_SEVEN,
                **_MODEL,
                "input": [[0, 254], [254, 0]],
                "attention": {
                    "grid": [1, 1],
                    "mean": _FLAT,
                    "blocks": [{"mean": _FLAT, "latents": [_FLAT]}],
                },
                "attribution": {"method": "occlusion", "map": [[0.0, 2.5], [1.5, 0.0]]},
            }
        }
    )

    input: list[list[int]] = Field(
        description="what the model saw, row by row: 0 for the ground to 255 for strokes"
    )
    attention: Attention
    attribution: Attribution

    @classmethod
    def of_explanation(cls, explanation: Explanation, card: Card) -> "ExplainAnswer":
        """As the answer tells it."""
        maps = explanation.maps
        blocks = [
            BlockAttention.model_construct(
                mean=_rows(block.mean(axis=0)), latents=[_rows(latent) for latent in block]
            )
            for block in maps.attention
        ]
        return cls.model_construct(
            **dict(PredictAnswer.of_model(explanation.prediction, card)),
            input=explanation.values[0].tolist(),
            attention=Attention.model_construct(
                grid=list(maps.grid), mean=_rows(maps.attention.mean(axis=(0, 1))), blocks=blocks
            ),
            attribution=Attribution.model_construct(
                method="occlusion", map=_rows(maps.attribution)
            ),
        )


def _rows(values: NDArray[np.float32]) -> Map:
    """A map (H, W) to six decimals."""
    rows: Map = values.astype(np.float64).round(6).tolist()
    return rows


class Box(BaseModel):
    """Where a digit stands, in pixels of the upright picture, from its top left corner."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, box: tuple[float, float, float, float]) -> "Box":
        """To a tenth of a pixel."""
        x, y, width, height = (round(length, 1) for length in box)
        return cls.model_construct(x=x, y=y, width=width, height=height)


class BoxedReading(Reading):
    """One digit of a number."""

    box: Box


class ReadLine(BaseModel):
    """One line of a picture."""

    text: str = Field(description="its digits, left to right")
    confidence: float = Field(ge=0, le=1, description="the product of the digits' confidences")
    digits: list[BoxedReading]


class ReadAnswer(_FromModel):
    """Answer of /read."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "text": "7",
                "width": 120,
                "height": 90,
                "lines": [
                    {
                        "text": "7",
                        "confidence": 0.9991,
                        "digits": [
                            {**_SEVEN, "box": {"x": 40.0, "y": 20.0, "width": 30.0, "height": 50.0}}
                        ],
                    }
                ],
                **_MODEL,
            }
        }
    )

    text: str = Field(description="all digits, the lines parted by a line feed")
    width: int = Field(description="of the upright picture, in pixels")
    height: int = Field(description="of the upright picture, in pixels")
    lines: list[ReadLine] = Field(description="top to bottom; empty where no digits are found")

    @classmethod
    def of_number(cls, number: PlacedReading, card: Card) -> "ReadAnswer":
        """As the answer tells it."""
        lines = []
        for line in number.lines:
            digits = [
                BoxedReading.model_construct(
                    **dict(Reading.of(digit.classification)),
                    box=Box.of(digit.box),
                )
                for digit in line
            ]
            lines.append(
                ReadLine.model_construct(
                    text="".join(digit.label for digit in digits),
                    confidence=math.prod(digit.confidence for digit in digits),
                    digits=digits,
                )
            )
        width, height = number.size
        return cls.model_construct(
            text="\n".join(line.text for line in lines),
            width=width,
            height=height,
            lines=lines,
            model=card.name,
            version=card.version,
        )


class ItemError(BaseModel):
    """In the place of an image that can't be read."""

    error: Problem


class BatchAnswer(_FromModel):
    """Answer of /predict/batch."""

    model_config = ConfigDict(
        json_schema_extra={"example": {**_MODEL, "predictions": [_SEVEN, {"error": _UNREADABLE}]}}
    )

    predictions: list[Reading | ItemError] = Field(description="one per image, in their order")


class ReloadAnswer(_FromModel):
    """Answer of /admin/reload."""

    model_config = ConfigDict(json_schema_extra={"example": {**_MODEL, "previous": "0.9.0"}})

    previous: str = Field(description="version that served before")


class HealthAnswer(BaseModel):
    """Answer of the health calls where all is well."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "ok"}})

    status: Literal["ok"] = "ok"


class EngineInfo(BaseModel):
    """What computes."""

    name: str = Field(description="onnxruntime or torch")
    device: str = Field(description="cpu or cuda:N")
    threads: int = Field(description="CPU threads of one computation")


class InputInfo(BaseModel):
    """What images are expected."""

    formats: list[str] = Field(description="image types that are read")
    shape: list[int] = Field(description="channels, rows, columns of the model's input")
    note: str = "any size and mode, dark on light or light on dark: the service centres the digit"


class Limits(BaseModel):
    """Bounds on requests."""

    max_bytes: int = Field(description="bytes of one image")
    max_pixels: int = Field(description="pixels of one image")
    max_files: int = Field(description="images in one batch request")
    max_body_bytes: int = Field(description="bytes of one batch request")
    max_batch: int = Field(description="images computed at once")
    max_queue: int = Field(description="images that may wait")
    request_timeout_s: float = Field(description="seconds for an answer once the body is read")


class MetadataAnswer(BaseModel):
    """Answer of /metadata."""

    card: Card
    engine: EngineInfo
    input: InputInfo
    limits: Limits
    versions: dict[str, str] = Field(description="of Python and the libraries in use")


class InferError(BaseModel):
    """An error of the Open Inference Protocol."""

    model_config = ConfigDict(json_schema_extra={"example": {"error": "the model is not loaded"}})

    error: str = Field(description="what happened and what would help")


class InferLive(BaseModel):
    """Answer of /v2/health/live where all is well."""

    model_config = ConfigDict(json_schema_extra={"example": {"live": True}})

    live: Literal[True] = True


class InferReady(BaseModel):
    """Answer of /v2/health/ready where all is well."""

    model_config = ConfigDict(json_schema_extra={"example": {"ready": True}})

    ready: Literal[True] = True


class InferServer(BaseModel):
    """Answer of /v2."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "perceiver-serve",
                "version": "0.1.0",
                "extensions": ["binary_tensor_data"],
            }
        }
    )

    name: str = "perceiver-serve"
    version: str
    extensions: list[str] = ["binary_tensor_data"]


class InferTensor(BaseModel):
    """A tensor of the model."""

    name: str
    datatype: str = Field(description="UINT8, INT64, FP32 or BYTES")
    shape: list[int] = Field(description="-1 is the number of images")


class InferModel(BaseModel):
    """Answer of /v2/models/NAME."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "perceiver-mnist",
                "versions": ["1.0.0"],
                "platform": "onnxruntime",
                "inputs": [{"name": "picture", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": "digit", "datatype": "INT64", "shape": [-1]}],
            }
        }
    )

    name: str
    versions: list[str]
    platform: str = Field(description="what computes")
    inputs: list[InferTensor]
    outputs: list[InferTensor]


class InferModelReady(BaseModel):
    """Answer of /v2/models/NAME/ready where all is well."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "perceiver-mnist", "ready": True}}
    )

    name: str
    ready: Literal[True] = True


class InferData(InferTensor):
    """A tensor with its values."""

    parameters: dict[str, JsonValue] | None = Field(
        None, description="`binary_data_size`: bytes of the values after the JSON"
    )
    data: list[JsonValue] | None = Field(
        None, description="the values, row by row, where they are in the JSON"
    )


class InferAnswer(BaseModel):
    """Answer of /v2/models/NAME/infer."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model_name": "perceiver-mnist",
                "model_version": "1.0.0",
                "id": "42",
                "outputs": [{"name": "digit", "datatype": "INT64", "shape": [1], "data": [7]}],
            }
        }
    )

    model_name: str
    model_version: str
    id: str | None = Field(None, description="the caller's own, if sent")
    outputs: list[InferData]
