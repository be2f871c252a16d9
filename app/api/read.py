"""POST /read."""

from fastapi import APIRouter, Request, Response

from app.gate import bodies as uploads
from app.gate.service import Service
from app.inference.reader import read_number
from app.wire.answers import ReadAnswer
from app.wire.contracts import contract

router = APIRouter()


@router.post(**contract("/read"))
async def read(request: Request) -> Response:
    """All digits of a picture, such as a postcode, a phone number or a meter reading.

    Lines from top to bottom, digits from left to right; each with its box and probabilities. A
    picture without digits has no lines. Points, dashes and the like are left out.
    """
    service = Service.of(request)
    predictor = service.predictor
    image = await uploads.read_image(request, service.settings)
    work = read_number(predictor, image, service.settings.max_pixels, service.deadline())
    number = await uploads.unless_gone(request.receive, work)
    request.state.timing = number.timing
    return ReadAnswer.of_number(number, predictor.card).respond()
