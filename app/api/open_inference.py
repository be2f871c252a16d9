"""The Open Inference Protocol v2 under /v2, as KServe, Triton, MLServer and their clients speak it.

Errors here are the protocol's: `{"error": text}`, see `app.wire.refusals.respond`.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from app.api import health
from app.gate.bodies import unless_gone
from app.gate.encodings import read_inflated
from app.gate.service import Service
from app.inference.engines import EngineError
from app.inference.predictor import Classification, Predictor, Timing
from app.wire import open_inference as answers
from app.wire import problems, tensors
from app.wire.contracts import contract
from app.wire.problems import RequestError
from app.wire.refusals import kind_of
from app.wire.tensors import JSON_LENGTH, TensorSpec, quote
from model.checkpoint.card import Card
from model.modalities import Cost, InputError, find

router = APIRouter()

NO_NUMBER = -1  # in the output of a number, of a label that stands for none
# Bytes of JSON; to parse more would keep the event loop from others for too long.
LARGEST_PARSED_HERE = 2**18
# To parse more takes more memory than a request may.
MOST_JSON_BYTES = 2**25


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
        *(TensorSpec(name, "INT64", (-1,)) for name in find(card.input.modality).numbers),
        TensorSpec("novelty", "FP32", (-1,)),
    )


@router.get(**contract("/v2/health/live"))
async def live(request: Request) -> Response:
    """As /health/live."""
    await health.live(request)
    return answers.InferLive().respond()


@router.get(**contract("/v2/health/ready"))
async def ready(request: Request) -> Response:
    """As /health/ready."""
    await health.ready(request)
    return answers.InferReady().respond()


@router.get("/v2/", include_in_schema=False)
@router.get(**contract("/v2"))
async def server() -> Response:
    """The server and the protocol's extensions that it has."""
    return answers.InferServer(version=version("perceiver-serve")).respond()


@router.get(**contract("/v2/models/{name}"))
@router.get(**contract("/v2/models/{name}/versions/{version}"))
async def metadata(request: Request) -> Response:
    """The model's inputs, of which a request brings one, and its outputs."""
    predictor = _predictor(request)
    card = predictor.card
    return answers.InferModel(
        name=card.name,
        versions=[card.version],
        platform=predictor.engine.name,
        inputs=[_described(spec) for spec in inputs_of(card)],
        outputs=[_described(spec) for spec in outputs_of(card)],
    ).respond()


@router.get(**contract("/v2/models/{name}/ready"))
@router.get(**contract("/v2/models/{name}/versions/{version}/ready"))
async def model_ready(request: Request) -> Response:
    """As /health/ready, of the model named."""
    name = _predictor(request).card.name
    await health.ready(request)
    return answers.InferModelReady(name=name).respond()


@router.post(**contract("/v2/models/{name}/infer"))
@router.post(**contract("/v2/models/{name}/versions/{version}/infer"))
async def infer(request: Request) -> Response:
    """Probabilities and novelty of each image, numbers too; an unreadable one fails the request."""
    service = Service.of(request)
    predictor, settings = _predictor(request), service.settings
    reader = tensors.Reader(
        inputs_of(predictor.card), outputs_of(predictor.card), settings.max_files
    )
    body = await read_inflated(request, settings.max_body_bytes, settings.request_timeout_s)
    json_length = _json_length(request)
    deadline = service.deadline()
    text_length = min(len(body), json_length or len(body))
    if text_length > MOST_JSON_BYTES:
        lack = f"the JSON has more than {MOST_JSON_BYTES:,} bytes; send tensors as binary data"
        raise RequestError(problems.TOO_MANY_BYTES, lack)
    try:
        if text_length > LARGEST_PARSED_HERE:
            read = partial(reader.read, json_length=json_length)
            reading = service.decoders.run(read, [body], [Cost(len(body))], deadline)
            (inputs,) = await unless_gone(request.receive, reading)
            if isinstance(inputs, InputError):
                raise inputs
        else:
            inputs = reader.read(body, json_length)
    except tensors.TooLargeError as error:
        raise RequestError(problems.TOO_MANY_FILES, str(error)) from None
    except tensors.WireError as error:
        raise RequestError(problems.MALFORMED_INFERENCE, str(error)) from None
    if inputs.timeout_us is not None:
        now = asyncio.get_running_loop().time()
        deadline = min(deadline, now + inputs.timeout_us / 1e6)
    work = _predict(predictor, inputs, settings.max_bytes, deadline)
    predictions = await unless_gone(request.receive, work)
    request.state.timing = Timing.slowest(prediction.timing for prediction in predictions)
    head = {"model_name": predictor.card.name, "model_version": predictor.card.version}
    if inputs.id is not None:
        head["id"] = inputs.id
    content, length = tensors.write(head, reader.outputs, _arrays(predictions), inputs.outputs)
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, 200, {JSON_LENGTH: str(length)}, "application/octet-stream")


def _predictor(request: Request) -> Predictor:
    """The predictor of the model, and of its version where one is named, in the path."""
    service, wanted = Service.of(request), request.path_params
    model = service.models.get(wanted["name"])
    if model is None:
        lack = f"there is no model {quote(wanted['name'])}; there is {service.model.card.name}"
        raise RequestError(problems.MODEL_NOT_FOUND, lack)
    name, there = model.card.name, model.card.version
    if wanted.get("version", there) != there:
        lack = f"there is no version {quote(wanted['version'])} of {name}; there is {there}"
        raise RequestError(problems.MODEL_NOT_FOUND, lack)
    return model.predictor


def _json_length(request: Request) -> int | None:
    value = request.headers.get(JSON_LENGTH)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 20):
        raise RequestError(problems.MALFORMED_INFERENCE, f"{JSON_LENGTH} is not a number of bytes")
    return int(value)


async def _predict(
    predictor: Predictor, inputs: tensors.Inputs, max_bytes: int, deadline: float
) -> list[Classification]:
    name, values = inputs.name, inputs.values
    outcomes: Sequence[Classification | InputError | EngineError]
    if isinstance(values, list):
        for index, picture in enumerate(values):
            if len(picture) > max_bytes:
                refusal = f"{name} {index} has more than {max_bytes:,} bytes"
                raise RequestError(problems.TOO_MANY_BYTES, refusal)
        outcomes = await predictor.predict_many(values, deadline)
    else:
        config = predictor.card.model
        shape = (len(values), config.num_channels, *config.input_shape)
        outcomes = await predictor.predict_arrays(list(values.reshape(shape)), deadline)
    predictions: list[Classification] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, InputError):
            raise RequestError(kind_of(outcome), f"{name} {index}: {outcome}")
        if isinstance(outcome, EngineError):
            raise outcome
        predictions.append(outcome)
    return predictions


def _arrays(predictions: Sequence[Classification]) -> dict[str, NDArray[Any]]:
    numbers = {
        name: np.array(
            [NO_NUMBER if p.numbers[name] is None else p.numbers[name] for p in predictions]
        )
        for name in predictions[0].numbers
    }
    return numbers | {
        "probabilities": np.array([p.probabilities for p in predictions]),
        "novelty": np.array([p.novelty for p in predictions]),
    }


def _described(spec: TensorSpec) -> answers.InferTensor:
    return answers.InferTensor(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))
