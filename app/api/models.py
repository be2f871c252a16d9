"""GET /metadata, and what the problems' types mean."""

import platform
from importlib.metadata import version

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from app.gate.service import Service
from app.settings import Settings
from app.wire.answers import EngineInfo, InputInfo, Limits, MetadataAnswer
from app.wire.openapi import HEADERS, REQUEST_ID_PARAMETER, errors
from app.wire.problems import KINDS, NOT_FOUND, NOT_READY, QUEUE_FULL, Kind
from model.checkpoint.calibration import Calibration
from model.checkpoint.card import (
    Card,
    ClassFigures,
    DatasetInfo,
    Evaluation,
    NoveltyFigures,
    TrainingRecord,
)
from model.checkpoint.config import PerceiverConfig, TrainConfig
from model.modalities.digits.modality import SPEC
from model.modalities.pillow import FORMATS

router = APIRouter(tags=["metadata"])


def explanation(kind: Kind) -> str:
    """What a kind of problem means, in plain words."""
    return f"{kind.status} {kind.title}\n\n{kind.help}\n"


_FIGURES = Evaluation(
    n=100,
    errors=1,
    accuracy=0.99,
    nll=0.03,
    ece=0.005,
    per_class=tuple(
        ClassFigures(label=str(d), n=10, recall=0.99, precision=0.99) for d in range(10)
    ),
)
EXAMPLE = MetadataAnswer(
    card=Card(
        name="perceiver-mnist",
        version="1.0.0",
        created="2026-01-01T00:00:00+00:00",
        parameters=1_000_000,
        model=PerceiverConfig(),
        labels=tuple("0123456789"),
        inputs=(SPEC,),
        calibration=Calibration(temperature=1.4, sharpness=1.8),
        metrics={"validation": _FIGURES, "test": _FIGURES},
        novelty=NoveltyFigures(validation_false_alarms=0.01, test_false_alarms=0.012),
        dataset=DatasetInfo(name="MNIST", sha256="0" * 64, train=800, validation=100, test=100),
        training=TrainingRecord(
            recipe=TrainConfig(), chosen_epoch=40, seconds=4000, environment={"torch": "2.13.0"}
        ),
        files={"model.safetensors": "0" * 64, "model.onnx": "0" * 64},
    ),
    engine=EngineInfo(name="onnxruntime", device="cpu", threads=2),
    input=InputInfo(formats=list(FORMATS), shape=[1, 28, 28]),
    limits=Limits.model_validate(Settings.model_construct(), from_attributes=True),
    versions={"python": "3.11.7", "onnxruntime": "1.32.0"},
).model_dump(mode="json")


@router.get(
    "/metadata",
    summary="The model and what serves it",
    responses={
        200: {
            "description": "The model's card and the service's limits",
            "headers": HEADERS,
            "content": {"application/json": {"example": EXAMPLE}},
        },
        **errors("/metadata", {NOT_READY: "the model is not loaded"}),
    },
    openapi_extra={"parameters": [REQUEST_ID_PARAMETER]},
)
async def metadata(request: Request) -> MetadataAnswer:
    """The model's card, the engine and device in use, the limits and library versions."""
    service = Service.of(request)
    predictor, settings = service.predictor, service.settings
    config = predictor.card.model
    return MetadataAnswer(
        card=predictor.card,
        engine=EngineInfo(
            name=predictor.engine.name, device=predictor.engine.device, threads=settings.threads
        ),
        input=InputInfo(formats=list(FORMATS), shape=[config.num_channels, *config.input_shape]),
        limits=Limits.model_validate(settings, from_attributes=True),
        versions={
            "python": platform.python_version(),
            **{
                package: version(package)
                for package in ("fastapi", "uvicorn", "pillow", "numpy", predictor.engine.name)
            },
        },
    )


@router.get(
    "/problems/{slug}",
    summary="What a problem's type means",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "In plain words",
            "headers": HEADERS,
            "content": {"text/plain": {"example": explanation(QUEUE_FULL)}},
        },
        **errors("/problems/nothing", {NOT_FOUND: "there is no page /problems/nothing"}),
    },
    openapi_extra={
        "parameters": [
            {
                "name": "slug",
                "in": "path",
                "required": True,
                "description": "the last part of a problem's type",
                "schema": {"type": "string"},
                "example": "queue-full",
            },
            REQUEST_ID_PARAMETER,
        ]
    },
)
async def problem(request: Request) -> PlainTextResponse:
    """A problem's `type` leads here."""
    kind = KINDS.get(request.path_params["slug"])
    if kind is None:
        raise HTTPException(404)
    return PlainTextResponse(explanation(kind))
