"""The Open Inference Protocol v2 under /v2, as KServe, Triton, MLServer and their clients speak it.

Errors here are the protocol's: `{"error": text}`, see `app.wire.problems.respond`.
"""

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from app.api import health
from app.gate.bodies import read_body, unless_gone
from app.gate.service import Service
from app.inference.engines import EngineError
from app.inference.predictor import Prediction, Predictor, Timing
from app.wire.answers import (
    InferAnswer,
    InferLive,
    InferModel,
    InferModelReady,
    InferReady,
    InferServer,
    InferTensor,
)
from app.wire.openapi import HEADERS, REQUEST_ID_PARAMETER, errors
from app.wire.problems import (
    DEADLINE_EXCEEDED,
    EMPTY_BODY,
    EMPTY_IMAGE,
    ENGINE_STUCK,
    INTERNAL,
    MALFORMED_INFERENCE,
    MODEL_NOT_FOUND,
    NOT_READY,
    QUEUE_FULL,
    TOO_MANY_BYTES,
    TOO_MANY_FILES,
    TOO_MANY_PIXELS,
    UNREADABLE_IMAGE,
    UNSUPPORTED_ENCODING,
    UNSUPPORTED_IMAGE,
    UPLOAD_STALLED,
    Kind,
    RequestError,
    kind_of,
)
from app.wire.tensors import Inputs, Reader, TensorSpec, TooLargeError, WireError, write
from model.checkpoint.card import Card
from model.modalities.pillow import ImageError

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

T = TypeVar("T")

JSON_LENGTH = "Inference-Header-Content-Length"
NO_DIGIT = -1  # in the output `digit`, of a class that is none
# Reading a body larger than this would keep the event loop from others for too long.
_LARGE = 2**18
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

_PATH = {"in": "path", "required": True, "schema": {"type": "string"}}
_NAME = {"name": "name", "description": "the model's name", "example": "perceiver-mnist", **_PATH}
_VERSION = {"name": "version", "description": "its version", "example": "1.0.0", **_PATH}
_SERVER = {"parameters": [REQUEST_ID_PARAMETER]}
_MODEL = {"parameters": [_NAME, REQUEST_ID_PARAMETER]}
_MODEL_VERSION = {"parameters": [_NAME, _VERSION, REQUEST_ID_PARAMETER]}
_NO_MODEL = "there is no model 'other'; there is perceiver-mnist"
_NOT_LOADED = "the model is not loaded"
_SHUTTING_DOWN = "the service is shutting down"


def inputs_of(card: Card) -> tuple[TensorSpec, TensorSpec]:
    """The tensors that a request may bring: images in the model's form, or encoded pictures."""
    channels = (card.model.num_channels,) if card.model.num_channels > 1 else ()
    return (
        TensorSpec("image", "UINT8", (-1, *channels, *card.model.input_shape)),
        TensorSpec("picture", "BYTES", (-1,)),
    )


def outputs_of(card: Card) -> tuple[TensorSpec, ...]:
    """The tensors that an answer may hold."""
    return (
        TensorSpec("probabilities", "FP32", (-1, len(card.labels))),
        TensorSpec("digit", "INT64", (-1,)),
        TensorSpec("novelty", "FP32", (-1,)),
    )


def _answers(
    description: str, details: Mapping[Kind, str] | None = None
) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "headers": HEADERS}, **errors("/v2", details or {})}


_IT_CAN = _answers("It can", {MODEL_NOT_FOUND: _NO_MODEL, NOT_READY: _SHUTTING_DOWN})
_TENSORS = _answers("Its tensors", {MODEL_NOT_FOUND: _NO_MODEL, NOT_READY: _NOT_LOADED})


@router.get(
    "/health/live",
    summary="Is the process alive?",
    responses=_answers("It is", {ENGINE_STUCK: "one computation runs for too long"}),
    openapi_extra=_SERVER,
)
async def live(request: Request) -> InferLive:
    """As /health/live."""
    await health.live(request)
    return InferLive()


@router.get(
    "/health/ready",
    summary="Can it answer now?",
    responses=_answers("It can", {NOT_READY: _SHUTTING_DOWN}),
    openapi_extra=_SERVER,
)
async def ready(request: Request) -> InferReady:
    """As /health/ready."""
    await health.ready(request)
    return InferReady()


@router.get("/", include_in_schema=False)
@router.get(
    "",
    summary="What serves",
    responses=_answers("Name, version and extensions of the server"),
    openapi_extra=_SERVER,
)
async def server() -> InferServer:
    """The server and the protocol's extensions that it has."""
    return InferServer(version=version("perceiver-serve"))


@router.get(
    "/models/{name}",
    summary="What the model takes and gives",
    responses=_TENSORS,
    openapi_extra=_MODEL,
)
@router.get(
    "/models/{name}/versions/{version}",
    summary="What this version of the model takes and gives",
    responses=_TENSORS,
    openapi_extra=_MODEL_VERSION,
)
async def metadata(request: Request) -> InferModel:
    """The model's inputs, of which a request brings one, and its outputs."""
    predictor = _predictor(request)
    card = predictor.card
    return InferModel(
        name=card.name,
        versions=[card.version],
        platform=predictor.engine.name,
        inputs=[_described(spec) for spec in inputs_of(card)],
        outputs=[_described(spec) for spec in outputs_of(card)],
    )


@router.get(
    "/models/{name}/ready",
    summary="Can the model answer now?",
    responses=_IT_CAN,
    openapi_extra=_MODEL,
)
@router.get(
    "/models/{name}/versions/{version}/ready",
    summary="Can this version of the model answer now?",
    responses=_IT_CAN,
    openapi_extra=_MODEL_VERSION,
)
async def model_ready(request: Request) -> InferModelReady:
    """As /health/ready, of the model named."""
    name = _predictor(request).card.name
    await health.ready(request)
    return InferModelReady(name=name)


_INFER: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "model": InferAnswer,
            "description": "The outputs asked for, else all. As application/octet-stream where one "
            f"is wanted in binary form: JSON of as many bytes as {JSON_LENGTH} says, then the "
            "tensors.",
            "headers": HEADERS,
        },
        **errors(
            "/v2/models/perceiver-mnist/infer",
            {
                EMPTY_BODY: "the request has no body",
                MALFORMED_INFERENCE: "input 'image' has the datatype 'FP32'; send UINT8",
                TOO_MANY_FILES: "input 'image' has 65 images; send 64 at a time, at most",
                EMPTY_IMAGE: "picture 0: the image is empty: it has no bytes",
                MODEL_NOT_FOUND: _NO_MODEL,
                UPLOAD_STALLED: "nothing arrived for 10 s",
                TOO_MANY_BYTES: "the body has more than 67,108,864 bytes",
                TOO_MANY_PIXELS: "picture 0: the image has 9000 x 9000 pixels, more than the "
                "25,000,000 allowed",
                UNSUPPORTED_ENCODING: "the content encoding is br; send gzip, deflate or none",
                UNSUPPORTED_IMAGE: "picture 0: the image is of none of the types read: PNG, JPEG, "
                "GIF, BMP, WEBP, TIFF",
                UNREADABLE_IMAGE: "picture 0: the PNG image is truncated or broken",
                INTERNAL: "something went wrong on our side",
                QUEUE_FULL: "1024 images are waiting, as many as may",
                NOT_READY: _SHUTTING_DOWN,
                DEADLINE_EXCEEDED: "the answer was not ready in time",
            },
        ),
    },
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One input: `image`, or `picture`, whose elements are base64 text in JSON. "
        f"With the header {JSON_LENGTH} the body is JSON of so many bytes, then the tensors of "
        "the inputs with `parameters.binary_data_size`. It may be compressed by gzip or deflate.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": {"type": "object"},
                        "inputs": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 1,
                            "items": {"$ref": "#/components/schemas/InferData"},
                        },
                        "outputs": {
                            "type": "array",
                            "items": {"type": "object", "required": ["name"]},
                        },
                    },
                },
                "example": {
                    "inputs": [
                        {"name": "picture", "shape": [1], "datatype": "BYTES", "data": ["R0lGODdh"]}
                    ]
                },
            }
        },
    }
}


@router.post(
    "/models/{name}/infer",
    summary="Read digits",
    **_INFER,
    openapi_extra={**_MODEL, **_BODY},
)
@router.post(
    "/models/{name}/versions/{version}/infer",
    summary="Read digits with this version of the model",
    **_INFER,
    openapi_extra={**_MODEL_VERSION, **_BODY},
)
async def infer(request: Request) -> Response:
    """Probabilities, digit and novelty of each image; one that can't be read fails the request."""
    service = Service.of(request)
    predictor, settings = _predictor(request), service.settings
    reader = Reader(inputs_of(predictor.card), outputs_of(predictor.card), settings.max_files)
    body = await _read_body(request, settings.max_body_bytes)
    json_length = _json_length(request)
    try:
        inputs = await _aside(len(body), lambda: reader.read(body, json_length))
    except TooLargeError as error:
        raise RequestError(TOO_MANY_FILES, str(error)) from None
    except WireError as error:
        raise RequestError(MALFORMED_INFERENCE, str(error)) from None
    deadline = service.deadline()
    if inputs.timeout_us is not None:
        now = asyncio.get_running_loop().time()
        deadline = min(deadline, now + inputs.timeout_us / 1e6)
    work = _predict(predictor, inputs, settings.max_bytes, deadline)
    predictions = await unless_gone(request.receive, work)
    request.state.timing = Timing.slowest(prediction.timing for prediction in predictions)
    head = {"model_name": predictor.card.name, "model_version": predictor.card.version}
    if inputs.id is not None:
        head["id"] = inputs.id
    content, length = write(head, reader.outputs, _arrays(predictions), inputs.outputs)
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, 200, {JSON_LENGTH: str(length)}, "application/octet-stream")


def _predictor(request: Request) -> Predictor:
    """The predictor of the model, and of its version where one is named, in the path."""
    service, wanted = Service.of(request), request.path_params
    model = service.models.get(wanted["name"])
    if model is None:
        there = service.model.card.name
        raise RequestError(
            MODEL_NOT_FOUND, f"there is no model {wanted['name']!r}; there is {there}"
        )
    card = model.card
    if wanted.get("version", card.version) != card.version:
        raise RequestError(
            MODEL_NOT_FOUND,
            f"there is no version {wanted['version']!r} of {card.name}; there is {card.version}",
        )
    return model.predictor


async def _read_body(request: Request, max_bytes: int) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in (*_WINDOW_BITS, "identity"):
        raise RequestError(
            UNSUPPORTED_ENCODING,
            f"the content encoding is {encoding}; send gzip, deflate or none",
        )
    body = await read_body(request, max_bytes)
    if encoding == "identity":
        return body
    return await _aside(_LARGE, lambda: _inflate(body, encoding, max_bytes))


def _inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        content = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError(MALFORMED_INFERENCE, f"the body is not {encoding}: {error}") from None
    if len(content) > max_bytes:
        raise RequestError(TOO_MANY_BYTES, f"the body inflates to more than {max_bytes:,} bytes")
    if not stream.eof or stream.unused_data:
        raise RequestError(MALFORMED_INFERENCE, f"the body is not one whole {encoding} stream")
    return content


def _json_length(request: Request) -> int | None:
    value = request.headers.get(JSON_LENGTH)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 20):
        raise RequestError(MALFORMED_INFERENCE, f"{JSON_LENGTH} is not a number of bytes")
    return int(value)


async def _aside(size: int, work: Callable[[], T]) -> T:
    return work() if size < _LARGE else await asyncio.to_thread(work)


async def _predict(
    predictor: Predictor, inputs: Inputs, max_bytes: int, deadline: float
) -> list[Prediction]:
    ((name, values),) = inputs.tensors.items()
    outcomes: Sequence[Prediction | ImageError | EngineError]
    if isinstance(values, list):
        for index, picture in enumerate(values):
            if len(picture) > max_bytes:
                raise RequestError(
                    TOO_MANY_BYTES, f"{name} {index} has more than {max_bytes:,} bytes"
                )
        outcomes = await predictor.predict_many(values, deadline)
    else:
        config = predictor.card.model
        shape = (len(values), config.num_channels, *config.input_shape)
        outcomes = await predictor.predict_arrays(list(values.reshape(shape)), deadline)
    predictions: list[Prediction] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, ImageError):
            raise RequestError(kind_of(outcome), f"{name} {index}: {outcome}")
        if isinstance(outcome, EngineError):
            raise outcome
        predictions.append(outcome)
    return predictions


def _arrays(predictions: Sequence[Prediction]) -> dict[str, NDArray[Any]]:
    digits = [NO_DIGIT if p.digit is None else p.digit for p in predictions]
    return {
        "probabilities": np.array([p.probabilities for p in predictions]),
        "digit": np.array(digits),
        "novelty": np.array([p.novelty for p in predictions]),
    }


def _described(spec: TensorSpec) -> InferTensor:
    return InferTensor(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))
