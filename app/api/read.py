"""POST /read."""

from fastapi import APIRouter, Request, Response

from app.gate.bodies import unless_gone
from app.gate.forms import read_image
from app.gate.service import Service
from app.inference.reader import read as read_parts
from app.wire.answers import ReadAnswer
from app.wire.contracts import contract
from app.wire.problems import NO_PARTS, RequestError

router = APIRouter()


@router.post(**contract("/read"))
async def read(request: Request) -> Response:
    """All parts of a picture, such as the digits of a postcode or of a meter reading.

    Lines from top to bottom, parts from left to right; each with its box and probabilities. A
    picture without parts has no lines. Points, dashes and the like are left out.
    """
    service = Service.of(request)
    predictor = service.predictor
    image = await read_image(request, service)
    if predictor.find_parts is None:
        raise RequestError(NO_PARTS, f"{predictor.card.name} finds no parts in a picture")
    work = read_parts(predictor, predictor.find_parts, image, service.deadline())
    reading = await unless_gone(request.receive, work)
    request.state.timing = reading.timing
    return ReadAnswer.of_reading(reading, predictor.card).respond()
