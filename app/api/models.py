"""GET /metadata."""

import platform
from importlib.metadata import version

from fastapi import APIRouter, Request, Response

from app.gate.service import Service
from app.wire.answers import EngineInfo, InputInfo, Limits, MetadataAnswer
from app.wire.contracts import contract

router = APIRouter()


@router.get(**contract("/metadata"))
async def metadata(request: Request) -> Response:
    """The model's card, the engine and device in use, the limits and library versions."""
    service = Service.of(request)
    predictor, settings = service.predictor, service.settings
    modality, spec = predictor.modality, predictor.card.input
    answer = MetadataAnswer(
        card=predictor.card,
        engine=EngineInfo(
            name=predictor.engine.name, device=predictor.engine.device, threads=settings.threads
        ),
        input=InputInfo(
            formats=list(modality.formats), shape=list(spec.array_shape), note=modality.note
        ),
        limits=Limits.model_validate(settings, from_attributes=True),
        versions={
            "python": platform.python_version(),
            **{
                package: version(package)
                for package in ("fastapi", "uvicorn", "pillow", "numpy", predictor.engine.name)
            },
        },
    )
    return answer.respond()
