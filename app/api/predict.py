"""POST /predict and /predict/batch."""

from fastapi import APIRouter, Request, Response

from app.gate import bodies as uploads
from app.gate.direct import PATH, predict_json
from app.gate.service import Service
from app.inference.predictor import Prediction, Timing
from app.wire.answers import BatchAnswer, ItemError, PredictionFields
from app.wire.contracts import contract
from app.wire.problems import RequestError
from app.wire.refusals import describe

router = APIRouter()


@router.post(**contract(PATH))
async def predict(request: Request) -> Response:
    """The digit in one picture: PNG, JPEG, GIF, BMP, WebP or TIFF, any size, grey or colour."""
    service = Service.of(request)
    predictor = service.predictor
    image = await uploads.read_image(request, service.settings)
    work = predictor.predict(image, service.deadline())
    prediction = await uploads.unless_gone(request.receive, work)
    request.state.timing = prediction.timing
    return Response(predict_json(prediction, predictor.card), media_type="application/json")


@router.post(**contract("/predict/batch"))
async def predict_batch(request: Request) -> Response:
    """The digits in several pictures; one that can't be read has its error in its place."""
    service = Service.of(request)
    predictor, settings = service.predictor, service.settings
    kind = uploads.content_type(request)
    if kind != uploads.FORM:
        raise uploads.unsupported(kind, uploads.FORM)
    limits = uploads.FormLimits(
        field="files",
        files=settings.max_files,
        file_bytes=settings.max_bytes,
        body_bytes=settings.max_body_bytes,
        stall_s=settings.request_timeout_s,
    )
    files = await uploads.read_form(request, limits)
    images = [file for file in files if isinstance(file, bytes)]
    work = predictor.predict_many(images, service.deadline())
    outcomes = iter(await uploads.unless_gone(request.receive, work))
    results = [file if isinstance(file, RequestError) else next(outcomes) for file in files]
    request.state.timing = Timing.slowest(
        result.timing for result in results if isinstance(result, Prediction)
    )
    answer = BatchAnswer.model_construct(
        model=predictor.card.name,
        version=predictor.card.version,
        predictions=[
            PredictionFields.of(result)
            if isinstance(result, Prediction)
            else ItemError(error=describe(result, f"/predict/batch#{index}"))
            for index, result in enumerate(results)
        ],
    )
    return answer.respond()
