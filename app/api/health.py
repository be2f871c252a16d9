"""GET /health, /health/live, /health/ready."""

import asyncio

from fastapi import APIRouter, Request, Response

from app.gate.service import Service
from app.inference.batcher import BatcherError
from app.wire.answers import HealthAnswer
from app.wire.contracts import contract
from app.wire.problems import ENGINE_STUCK, NOT_READY, RequestError

router = APIRouter()
PROBE_LIMIT_S = 1.0  # who asks for readiness waits no longer than two or three seconds


@router.get(**contract("/health/live"))
async def live(request: Request) -> Response:
    """503 asks for a restart: the engine or a decoder hangs."""
    service = Service.of(request)
    if service.started and service.predictor.stuck():
        raise RequestError(
            ENGINE_STUCK, "one computation, or one decoder, has been running for too long"
        )
    return HealthAnswer().respond()


@router.get(**contract("/health/ready"))
@router.get(**contract("/health"))
async def ready(request: Request) -> Response:
    """503 until the model is warm, while shutting down, and while the engine fails."""
    service = Service.of(request)
    if service.draining:
        raise RequestError(NOT_READY, "the service is shutting down")
    deadline = asyncio.get_running_loop().time() + PROBE_LIMIT_S
    try:
        answers = await service.predictor.can_answer(deadline)
    except BatcherError:
        answers = False
    if not answers:
        raise RequestError(NOT_READY, "the engine does not compute")
    return HealthAnswer().respond()
