"""POST /explain."""

import asyncio
from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Request, Response
from PIL import Image

from app.gate.bodies import unless_gone
from app.gate.forms import read_image
from app.gate.service import Service
from app.inference.explainer import Explanation
from app.wire.answers import ExplainAnswer
from app.wire.contracts import contract
from model.modalities.pillow import decode_within

router = APIRouter()

SHOWN_SIDE = 512  # of the upload in a picture that explains, pixels
PNG = "image/png"
JSON = "application/json"


@router.post(**contract("/explain"))
async def explain(request: Request) -> Response:
    """The label of one picture, where the model looked, and the ink that the answer rests on.

    `attention` is the cross-attention of each block's latents, the mean over their heads, laid over
    the pixels: where the model looked. `attribution` is what the answer rests on: the fall of its
    log-probability where a patch of ink is deleted, measured patch by patch.
    """
    service = Service.of(request)
    explainer = service.explainer
    card = explainer.card
    image = await read_image(request, service)
    deadline = service.deadline()
    explanation = await unless_gone(request.receive, explainer.explain(image, deadline))
    request.state.timing = explanation.prediction.timing
    headers = {"Vary": "Accept"}
    if prefers_png(request.headers.get("accept", "")):
        show = partial(decode_within, max_pixels=service.settings.max_pixels, side=SHOWN_SIDE)
        uploaded = await service.predictor.in_decoder(show, image, deadline)
        png = await asyncio.to_thread(_draw, explanation, uploaded, card.labels)
        return Response(png, media_type=PNG, headers=headers)
    return ExplainAnswer.of_explanation(explanation, card).respond(headers)


def prefers_png(accept: str) -> bool:
    """Whether an Accept header (RFC 9110, section 12.5.1) wants a picture rather than JSON."""
    return _quality(accept, PNG) > _quality(accept, JSON)


def _quality(accept: str, media_type: str) -> float:
    """Of the header's ranges that match, the most specific one's weight; 0 where none does."""
    best = (-1, 0.0)
    for entry in accept.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        weights = [value for value in parameters if value.startswith("q=")]
        try:
            weight = float(weights[0][2:]) if weights else 1.0
        except ValueError:
            continue
        ranges = ("*/*", media_type.partition("/")[0] + "/*", media_type)
        if name in ranges:
            best = max(best, (ranges.index(name), weight))
    return best[1]


def _draw(explanation: Explanation, uploaded: Image.Image, labels: Sequence[str]) -> bytes:
    from app.wire import explanation_picture  # takes long to import, and few ask for a picture

    return explanation_picture.draw(explanation, uploaded, labels)
