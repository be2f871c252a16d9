"""GET /problems/SLUG: what a problem's type means, in plain words."""

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from app.wire.contracts import contract
from app.wire.problems import KINDS

router = APIRouter()


@router.get(**contract("/problems/{slug}"))
async def problem(request: Request) -> PlainTextResponse:
    """A problem's `type` leads here."""
    kind = KINDS.get(request.path_params["slug"])
    if kind is None:
        raise HTTPException(404)
    return PlainTextResponse(kind.explanation)
