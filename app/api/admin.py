"""POST /admin/reload."""

from fastapi import APIRouter, Request

from app.gate.service import Service
from app.wire.answers import ReloadAnswer
from app.wire.openapi import HEADERS, REQUEST_ID_PARAMETER, errors
from app.wire.problems import (
    NOT_READY,
    RELOAD_FAILED,
    RELOAD_NEEDS_KEYS,
    UNAUTHORIZED,
    RequestError,
)

router = APIRouter(tags=["admin"])
_NEEDS_KEYS = "set API keys, or send the process SIGHUP"


@router.post(
    "/admin/reload",
    summary="Serve what the checkpoint folder holds now",
    responses={
        200: {"description": "What serves from now on", "headers": HEADERS},
        **errors(
            "/admin/reload",
            {
                UNAUTHORIZED: "the API key is not valid",
                RELOAD_NEEDS_KEYS: _NEEDS_KEYS,
                RELOAD_FAILED: "there is no checkpoint folder weights/mine",
                NOT_READY: "the model is not loaded",
            },
        ),
    },
    openapi_extra={"parameters": [REQUEST_ID_PARAMETER]},
)
async def reload(request: Request) -> ReloadAnswer:
    """Loads and proves the checkpoint, the API keys too, and puts them in place in every worker.

    No request fails meanwhile. Where anything is wrong, what served before still does. Only who
    has one of the service's API keys may ask for it.
    """
    service = Service.of(request)
    if not service.keys:
        raise RequestError(RELOAD_NEEDS_KEYS, _NEEDS_KEYS)
    before = service.predictor.card
    await service.reload()
    card = service.predictor.card
    return ReloadAnswer(model=card.name, version=card.version, previous=before.version)
