"""POST /predict and /predict/batch."""

from fastapi import APIRouter, Request, Response

from app.api import uploads
from app.api.documentation import HEADERS, REQUEST_ID_PARAMETER, errors
from app.lifecycle import Service
from app.predictor import Prediction, Timing
from app.problems import (
    DEADLINE_EXCEEDED,
    EMPTY_BODY,
    EMPTY_IMAGE,
    INTERNAL,
    MALFORMED_FORM,
    NOT_READY,
    QUEUE_FULL,
    TOO_MANY_BYTES,
    TOO_MANY_FILES,
    TOO_MANY_PIXELS,
    UNREADABLE_IMAGE,
    UNSUPPORTED_CONTENT_TYPE,
    UNSUPPORTED_IMAGE,
    UPLOAD_STALLED,
    WRONG_FIELD,
    RequestError,
    describe,
)
from app.schemas import BatchAnswer, ItemError, PredictAnswer, Reading

router = APIRouter(tags=["predict"])

_BINARY = {"type": "string", "format": "binary"}
_REQUEST_ERRORS = {
    EMPTY_BODY: "the request has no body; send an image",
    MALFORMED_FORM: "the form ends before its closing boundary",
    UPLOAD_STALLED: "nothing arrived for 10 s",
    UNSUPPORTED_CONTENT_TYPE: "the content type is text/plain; send multipart/form-data",
    INTERNAL: "something went wrong on our side",
    QUEUE_FULL: "1024 images are waiting, as many as may",
    NOT_READY: "the service is shutting down",
    DEADLINE_EXCEEDED: "the answer was not ready in time",
}


@router.post(
    "/predict",
    summary="Read one digit",
    response_class=Response,
    responses={
        200: {"model": PredictAnswer, "description": "What the model reads", "headers": HEADERS},
        **errors(
            "/predict",
            {
                **_REQUEST_ERRORS,
                EMPTY_IMAGE: "the image is empty: it has no bytes",
                WRONG_FIELD: "there is a field 'image'; send only 'file'",
                TOO_MANY_FILES: "more than 1 file(s) in the field 'file'",
                TOO_MANY_BYTES: "the body has more than 10,485,760 bytes",
                TOO_MANY_PIXELS: "the image has 9000 x 9000 pixels, more than the "
                "25,000,000 allowed",
                UNSUPPORTED_IMAGE: "the image is of none of the types read: PNG, JPEG, GIF, BMP, "
                "WEBP, TIFF",
                UNREADABLE_IMAGE: "the PNG image is truncated or broken",
            },
        ),
    },
    openapi_extra={
        "parameters": [REQUEST_ID_PARAMETER],
        "requestBody": {
            "required": True,
            "description": "The image in the form field `file`, or as the body itself.",
            "content": {
                uploads.FORM: {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": _BINARY},
                        "additionalProperties": False,
                    },
                    "example": {"file": "7.png"},
                },
                "image/*": {"schema": _BINARY, "example": "the bytes of 7.png"},
            },
        },
    },
)
async def predict(request: Request) -> Response:
    """The digit in one picture: PNG, JPEG, GIF, BMP, WebP or TIFF, any size, grey or colour."""
    service = Service.of(request)
    predictor, settings = service.predictor, service.settings
    kind = uploads.content_type(request)
    if kind == uploads.FORM:
        limits = uploads.FormLimits(
            field="file",
            files=1,
            file_bytes=settings.max_bytes,
            body_bytes=settings.max_bytes + uploads.FORM_OVERHEAD,
            stall_s=settings.request_timeout_s,
        )
        (image,) = await uploads.read_form(request, limits)
        if isinstance(image, RequestError):
            raise image
    elif kind.startswith("image/"):
        image = await uploads.read_body(request, settings.max_bytes, settings.request_timeout_s)
    else:
        raise uploads.unsupported(kind, f"{uploads.FORM} or an image/* type")
    prediction = await uploads.unless_gone(request, predictor.predict(image, service.deadline()))
    request.state.timing = prediction.timing
    reading = Reading.of(prediction)
    answer = PredictAnswer.model_construct(
        **dict(reading), model=predictor.card.name, version=predictor.card.version
    )
    return Response(answer.model_dump_json(), media_type="application/json")


@router.post(
    "/predict/batch",
    summary="Read several digits",
    response_class=Response,
    responses={
        200: {
            "model": BatchAnswer,
            "description": "What the model reads in each image, or why it can't",
            "headers": HEADERS,
        },
        **errors(
            "/predict/batch",
            {
                **_REQUEST_ERRORS,
                WRONG_FIELD: "there is a field 'file'; send only 'files'",
                TOO_MANY_FILES: "more than 64 file(s) in the field 'files'",
                TOO_MANY_BYTES: "the body has more than 67,108,864 bytes",
            },
        ),
    },
    openapi_extra={
        "parameters": [REQUEST_ID_PARAMETER],
        "requestBody": {
            "required": True,
            "content": {
                uploads.FORM: {
                    "schema": {
                        "type": "object",
                        "required": ["files"],
                        "properties": {"files": {"type": "array", "items": _BINARY, "minItems": 1}},
                        "additionalProperties": False,
                    },
                    "example": {"files": ["7.png", "2.png"]},
                }
            },
        },
    },
)
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
    outcomes = iter(
        await uploads.unless_gone(request, predictor.predict_many(images, service.deadline()))
    )
    results = [file if isinstance(file, RequestError) else next(outcomes) for file in files]
    request.state.timing = Timing.slowest(
        result.timing for result in results if isinstance(result, Prediction)
    )
    answer = BatchAnswer.model_construct(
        model=predictor.card.name,
        version=predictor.card.version,
        predictions=[
            Reading.of(result)
            if isinstance(result, Prediction)
            else ItemError(error=describe(result, f"/predict/batch#{index}"))
            for index, result in enumerate(results)
        ],
    )
    return Response(answer.model_dump_json(), media_type="application/json")
