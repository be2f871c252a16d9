"""JSON bodies of the answers; those of the protocol under /v2 are in `app.wire.open_inference`."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, JsonValue
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from starlette.responses import Response

from app.inference.explainer import Explanation
from app.inference.predictor import Classification
from app.inference.reader import Reading
from app.settings import Settings
from app.wire.problems import Problem
from model.checkpoint import card as cards
from model.checkpoint.calibration import Calibration
from model.checkpoint.card import Card
from model.checkpoint.config import PerceiverConfig, TrainConfig
from model.modalities import MODALITIES, find

_SEVEN: dict[str, JsonValue] = {
    "digit": 7,
    "label": "7",
    "confidence": 0.9991,
    "probabilities": [*[0.0001] * 7, 0.9991, 0.0001, 0.0001],
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
_BOX: JsonValue = {"x": 40.0, "y": 20.0, "width": 30.0, "height": 50.0}
_FLAT: JsonValue = [[0.25, 0.25], [0.25, 0.25]]

Map = list[list[float]]  # rows of the input's size


def example(**fields: JsonValue) -> ConfigDict:
    """Has the OpenAPI document show an answer with these fields."""
    return ConfigDict(json_schema_extra={"example": fields})


class Answer(BaseModel):
    """An answer or a part of one. Its validator is built with the first, not at the start."""

    model_config = ConfigDict(defer_build=True)

    def respond(self, headers: Mapping[str, str] | None = None) -> Response:
        """The response that carries this answer."""
        return Response(self.model_dump_json(), headers=headers, media_type="application/json")


def told_of(prediction: Classification) -> dict[str, Any]:
    """What the answers tell of a prediction: the fields of `PredictionFields`, by name."""
    return {
        **prediction.numbers,
        "label": prediction.label,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
        "novelty": prediction.novelty,
        "recognized": prediction.recognized,
    }


class PredictionFields(Answer):
    """What the model reads in one image, with the numbers that the label stands for."""

    model_config = ConfigDict(extra="allow", **example(**_SEVEN))
    __pydantic_extra__: dict[str, int | None]

    label: str = Field(description="the most probable class")
    confidence: float = Field(ge=0, le=1, description="its probability, calibrated")
    probabilities: tuple[float, ...] = Field(description="of each class, in order; they sum to 1")
    novelty: float = Field(
        ge=0, le=1, description="how unlike the images of its classes that the model was taught"
    )
    recognized: bool = Field(
        description="false where novelty exceeds 0.5: this seems to show none of the classes"
    )

    @classmethod
    def of(cls, prediction: Classification) -> "PredictionFields":
        """Takes over what the answers tell of a prediction."""
        return cls.model_construct(None, **told_of(prediction))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for modality in map(find, MODALITIES):
            for name, number in modality.numbers.items():
                properties[name] = {
                    "anyOf": [
                        {"type": "integer", "minimum": number.minimum, "maximum": number.maximum},
                        {"type": "null"},
                    ],
                    "description": number.description,
                }
        return schema


class ModelFields(Answer):
    """Which model answered."""

    model: str = Field(description="name of the model")
    version: str = Field(description="its semantic version")


class PredictAnswer(ModelFields, PredictionFields):
    """Answer of /predict."""

    model_config = example(**_SEVEN, **_MODEL)


class BlockAttention(Answer):
    """Where one block's latents looked."""

    mean: Map = Field(description="of its latents")
    latents: list[Map] = Field(description="each latent's, the mean over its heads")


class Attention(Answer):
    """Where the model looked: cross-attention over the pixels, each map of sum 1."""

    grid: list[int] = Field(
        description="rows and columns of the attention itself, which is interpolated to the pixels"
    )
    mean: Map = Field(description="of all blocks and latents")
    blocks: list[BlockAttention] = Field(description="in the order that they look")


class Attribution(Answer):
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

    model_config = example(
        **_SEVEN,
        **_MODEL,
        input=[[0, 254], [254, 0]],
        attention={"grid": [1, 1], "mean": _FLAT, "blocks": [{"mean": _FLAT, "latents": [_FLAT]}]},
        attribution={"method": "occlusion", "map": [[0.0, 2.5], [1.5, 0.0]]},
    )

    input: list[list[int]] = Field(description="what the model saw, row by row")
    attention: Attention
    attribution: Attribution

    @classmethod
    def of_explanation(cls, explanation: Explanation, card: Card) -> "ExplainAnswer":
        """The answer about one image and where the model looked."""
        maps = explanation.maps
        blocks = [
            BlockAttention.model_construct(
                mean=_rows(block.mean(axis=0)), latents=[_rows(latent) for latent in block]
            )
            for block in maps.attention
        ]
        return cls.model_construct(
            **told_of(explanation.prediction),
            model=card.name,
            version=card.version,
            input=explanation.values[0].tolist(),
            attention=Attention.model_construct(
                grid=list(maps.grid), mean=_rows(maps.attention.mean(axis=(0, 1))), blocks=blocks
            ),
            attribution=Attribution.model_construct(
                method="occlusion", map=_rows(maps.attribution)
            ),
        )


def _rows(values: NDArray[np.float32]) -> Map:
    """Rows of a map (H, W), rounded to six decimals."""
    rows: Map = values.astype(np.float64).round(6).tolist()
    return rows


class Box(Answer):
    """Where a part stands, in pixels of the upright picture, from its top left corner."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, box: tuple[float, float, float, float]) -> "Box":
        """A box of x, y, width and height, rounded to a tenth of a pixel."""
        x, y, width, height = (round(length, 1) for length in box)
        return cls.model_construct(x=x, y=y, width=width, height=height)


class ReadPart(PredictionFields):
    """One part of a picture, such as a digit of a number."""

    box: Box


class ReadLine(Answer):
    """One line of a picture."""

    text: str = Field(description="its parts' labels, left to right")
    confidence: float = Field(ge=0, le=1, description="the product of the parts' confidences")
    digits: list[ReadPart] = Field(description="its parts, whatever their modality calls them")


class ReadAnswer(ModelFields):
    """Answer of /read."""

    model_config = example(
        text="7",
        width=120,
        height=90,
        lines=[{"text": "7", "confidence": 0.9991, "digits": [{**_SEVEN, "box": _BOX}]}],
        **_MODEL,
    )

    text: str = Field(description="all labels, the lines parted by a line feed")
    width: int = Field(description="of the upright picture, in pixels")
    height: int = Field(description="of the upright picture, in pixels")
    lines: list[ReadLine] = Field(description="top to bottom; empty where nothing is found")

    @classmethod
    def of_reading(cls, reading: Reading, card: Card) -> "ReadAnswer":
        """The answer about a picture, line by line."""
        lines = []
        for line in reading.lines:
            parts = [
                ReadPart.model_construct(**told_of(part.classification), box=Box.of(part.box))
                for part in line
            ]
            lines.append(
                ReadLine.model_construct(
                    text="".join(part.label for part in parts),
                    confidence=math.prod(part.confidence for part in parts),
                    digits=parts,
                )
            )
        width, height = reading.size
        return cls.model_construct(
            text="\n".join(line.text for line in lines),
            width=width,
            height=height,
            lines=lines,
            model=card.name,
            version=card.version,
        )


class ItemError(Answer):
    """In the place of an image that can't be read."""

    error: Problem


class BatchAnswer(ModelFields):
    """Answer of /predict/batch."""

    model_config = example(**_MODEL, predictions=[_SEVEN, {"error": _UNREADABLE}])

    predictions: list[PredictionFields | ItemError] = Field(
        description="one per image, in their order"
    )


class ReloadAnswer(ModelFields):
    """Answer of /admin/reload."""

    model_config = example(**_MODEL, previous="0.9.0")

    previous: str = Field(description="version that served before")


class HealthAnswer(Answer):
    """Answer of the health calls where all is well."""

    model_config = example(status="ok")

    status: Literal["ok"] = "ok"


class EngineInfo(Answer):
    """What computes."""

    name: str = Field(description="onnxruntime or torch")
    device: str = Field(description="cpu or cuda:N")
    threads: int = Field(description="CPU threads of one computation")


class InputInfo(Answer):
    """What images are expected."""

    formats: list[str] = Field(description="image types that are read")
    shape: list[int] = Field(description="channels, rows, columns of the model's input")
    note: str = Field(description="what a person who uploads should know")


class Limits(Answer):
    """Bounds on requests."""

    max_bytes: int = Field(description="bytes of one image")
    max_pixels: int = Field(description="pixels of one image")
    max_request_pixels: int = Field(description="pixels to decode of all images of one request")
    max_decoding_pixels: int = Field(description="pixels of large images decoded at once")
    max_pending_pixels: int = Field(description="pixels that are decoded or wait for it")
    max_decode_cpu_s: float = Field(description="CPU seconds to decode a request's images")
    max_decode_bytes: int = Field(description="bytes of memory to decode one image")
    max_upload_bytes: int = Field(description="bytes of all requests under way, inflated")
    max_files: int = Field(description="images in one batch request")
    max_body_bytes: int = Field(description="bytes of one batch request")
    max_batch: int = Field(description="images computed at once")
    max_queue: int = Field(description="images that may wait")
    request_timeout_s: float = Field(description="seconds for an answer once the body is read")


def _add_metadata_example(schema: dict[str, JsonValue]) -> None:
    """Adds an example when the schema is asked for: a card takes time to make."""
    figures = cards.Evaluation(n=100, errors=1, accuracy=0.99, nll=0.03, ece=0.005, per_class=())
    image = cards.InputSpec(
        name="image", modality="digits", channels=1, shape=(28, 28), dtype="uint8"
    )
    digest = "0" * 64
    card = Card(
        name="perceiver-mnist",
        version="1.0.0",
        created="2026-01-01T00:00:00+00:00",
        parameters=1_000_000,
        model=PerceiverConfig(),
        labels=tuple("0123456789"),
        inputs=(image,),
        calibration=Calibration(temperature=1.4, sharpness=1.8),
        metrics={"validation": figures, "test": figures},
        novelty=cards.NoveltyFigures(validation_false_alarms=0.01, test_false_alarms=0.012),
        dataset=cards.DatasetInfo(name="MNIST", sha256=digest, train=800, validation=100, test=100),
        training=cards.TrainingRecord(
            recipe=TrainConfig(), chosen_epoch=40, seconds=4000, environment={"torch": "2.13.0"}
        ),
        files={"model.safetensors": digest, "model.onnx": digest},
    )
    answer = MetadataAnswer(
        card=card,
        engine=EngineInfo(name="onnxruntime", device="cpu", threads=2),
        input=InputInfo(formats=["PNG"], shape=[1, 28, 28], note="any size and mode"),
        limits=Limits.model_validate(Settings.model_construct(), from_attributes=True),
        versions={"python": "3.11.7", "onnxruntime": "1.32.0"},
    )
    schema["example"] = answer.model_dump(mode="json")


class MetadataAnswer(Answer):
    """Answer of /metadata."""

    model_config = ConfigDict(json_schema_extra=_add_metadata_example)

    card: Card
    engine: EngineInfo
    input: InputInfo
    limits: Limits
    versions: dict[str, str] = Field(description="of Python and the libraries in use")
