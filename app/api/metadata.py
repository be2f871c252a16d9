"""GET /metadata, and what the problems' types mean."""

import platform
from importlib.metadata import version

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from app.api.documentation import HEADERS, REQUEST_ID_PARAMETER, errors
from app.images import FORMATS
from app.lifecycle import Service
from app.problems import KINDS, NOT_FOUND, NOT_READY
from app.schemas import EngineInfo, InputInfo, Limits, MetadataAnswer

router = APIRouter(tags=["metadata"])


@router.get(
    "/metadata",
    summary="The model and what serves it",
    responses={
        200: {"description": "The model's card and the service's limits", "headers": HEADERS},
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
        200: {"description": "In plain words", "headers": HEADERS},
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
    return PlainTextResponse(f"{kind.status} {kind.title}\n\n{kind.help}\n")
