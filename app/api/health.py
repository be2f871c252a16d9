"""GET /health, /health/live, /health/ready."""

import asyncio

from fastapi import APIRouter, Request

from app.gate.service import Service
from app.inference.batcher import BatcherError
from app.wire.answers import HealthAnswer
from app.wire.openapi import HEADERS, REQUEST_ID_PARAMETER, errors
from app.wire.problems import ENGINE_STUCK, NOT_READY, RequestError

router = APIRouter(
    tags=["health"],
    responses={200: {"description": "All is well", "headers": HEADERS}},
)
PROBE_LIMIT_S = 1.0  # who asks for readiness waits no longer than two or three seconds
_PARAMETERS = {"parameters": [REQUEST_ID_PARAMETER]}
_STUCK = "one computation has been running for too long"
_NOT_READY = "the service is shutting down"


@router.get(
    "/health/live",
    summary="Is the process alive?",
    responses=errors("/health/live", {ENGINE_STUCK: _STUCK}),
    openapi_extra=_PARAMETERS,
)
async def live(request: Request) -> HealthAnswer:
    """503 asks for a restart: the engine hangs in a computation."""
    service = Service.of(request)
    if service.started and service.predictor.stuck():
        raise RequestError(ENGINE_STUCK, _STUCK)
    return HealthAnswer()


@router.get(
    "/health/ready",
    summary="Can it answer now?",
    responses=errors("/health/ready", {NOT_READY: _NOT_READY}),
    openapi_extra=_PARAMETERS,
)
@router.get(
    "/health",
    summary="As /health/ready",
    responses=errors("/health", {NOT_READY: _NOT_READY}),
    openapi_extra=_PARAMETERS,
)
async def ready(request: Request) -> HealthAnswer:
    """503 until the model is warm, while shutting down, and while the engine fails."""
    service = Service.of(request)
    if service.draining:
        raise RequestError(NOT_READY, _NOT_READY)
    deadline = asyncio.get_running_loop().time() + PROBE_LIMIT_S
    try:
        answers = await service.predictor.can_answer(deadline)
    except BatcherError:
        answers = False
    if not answers:
        raise RequestError(NOT_READY, "the engine does not compute")
    return HealthAnswer()
