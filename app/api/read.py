"""POST /read."""

from fastapi import APIRouter, Request, Response

from app.gate.bodies import unless_gone
from app.gate.forms import read_image
from app.gate.service import Service
from app.inference.reader import read_number
from app.wire.answers import ReadAnswer
from app.wire.openapi import HEADERS, IMAGE_BODY, IMAGE_ERRORS, REQUEST_ID_PARAMETER, errors
from app.wire.problems import TOO_MANY_MARKS
from model.modalities.digits.reading.segment import MOST_MARKS

router = APIRouter(tags=["predict"])


@router.post(
    "/read",
    summary="Read a number of several digits",
    response_class=Response,
    responses={
        200: {"model": ReadAnswer, "description": "What the picture says", "headers": HEADERS},
        **errors(
            "/read",
            {
                **IMAGE_ERRORS,
                TOO_MANY_MARKS: f"the picture shows more than {MOST_MARKS} separate marks: "
                "send the number alone",
            },
        ),
    },
    openapi_extra={"parameters": [REQUEST_ID_PARAMETER], "requestBody": IMAGE_BODY},
)
async def read(request: Request) -> Response:
    """All digits of a picture, such as a postcode, a phone number or a meter reading.

    Lines from top to bottom, digits from left to right; each with its box and probabilities. A
    picture without digits has no lines. Points, dashes and the like are left out.
    """
    service = Service.of(request)
    predictor = service.predictor
    image = await read_image(request, service.settings)
    work = read_number(predictor, image, service.settings.max_pixels, service.deadline())
    number = await unless_gone(request.receive, work)
    request.state.timing = number.timing
    answer = ReadAnswer.of_number(number, predictor.card)
    return Response(answer.model_dump_json(), media_type="application/json")
