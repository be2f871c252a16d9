"""GET /metrics and POST /admin/reload: what operators and their tools ask for."""

from fastapi import APIRouter, Request, Response

from app.gate.service import Service
from app.wire.answers import ReloadAnswer
from app.wire.contracts import contract
from app.wire.problems import RELOAD_NEEDS_KEYS, RequestError

router = APIRouter()


@router.get(**contract("/metrics"))
def metrics(request: Request) -> Response:
    """Of all workers, whichever answers."""
    from app.telemetry.exposition import Exposition  # which the start need not wait for

    exposition = Exposition(Service.of(request).metrics)
    page, content_type = exposition.page(request.headers.get("accept", ""))
    return Response(page, headers={"Content-Type": content_type})


@router.post(**contract("/admin/reload"))
async def reload(request: Request) -> Response:
    """Loads and proves the checkpoint, the API keys too, and puts them in place in every worker.

    No request fails meanwhile. Where anything is wrong, what served before still does. Only who
    has one of the service's API keys may ask for it.
    """
    service = Service.of(request)
    if not service.keys:
        raise RequestError(RELOAD_NEEDS_KEYS, "set API keys, or send the process SIGHUP")
    before = service.card  # which must not keep that model from being retired
    await service.reload()
    card = service.card
    answer = ReloadAnswer(model=card.name, version=card.version, previous=before.version)
    return answer.respond()
