"""Errors as the API tells them: problem details of RFC 9457, one type per cause."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

import model.modalities as inputs
from app.inference import batcher, engines
from model.modalities import pillow

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


class Problem(BaseModel):
    """Problem details of RFC 9457."""

    type: str = Field(
        description="one URI reference per cause; it answers GET",
        json_schema_extra={"format": "uri-reference"},
    )
    title: str = Field(description="the cause in a few words, the same each time")
    status: int = Field(ge=400, le=599, description="the HTTP status")
    detail: str = Field(description="what happened this time and what would help")
    instance: str = Field(
        description="the path asked for; in a batch with the image's index as fragment",
        json_schema_extra={"format": "uri-reference"},
    )


@dataclass(frozen=True)
class Kind:
    """A cause of errors."""

    slug: str
    status: int
    title: str
    help: str  # what a caller can do about it

    @property
    def uri(self) -> str:
        """The problem's `type`."""
        return f"/problems/{self.slug}"


EMPTY_BODY = Kind("empty-body", 400, "The request has no body", "Send an image.")
EMPTY_IMAGE = Kind("empty-image", 400, "The image is empty", "Send a file that holds an image.")
WRONG_FIELD = Kind(
    "wrong-field", 400, "Not the form field expected", "Name the form field as the detail says."
)
TOO_MANY_FILES = Kind(
    "too-many-files", 400, "Too many files in one request", "Send fewer, or use /predict/batch."
)
MALFORMED_FORM = Kind(
    "malformed-form", 400, "The form is malformed", "Send multipart/form-data as of RFC 7578."
)
MALFORMED_INFERENCE = Kind(
    "malformed-inference",
    400,
    "Not an inference request that the model takes",
    "See /v2/models/NAME for its inputs and outputs.",
)
MALFORMED_REQUEST = Kind("malformed-request", 400, "Not HTTP/1.1", "See RFC 9112.")
CLIENT_GONE = Kind("client-gone", 400, "The client hung up", "Nobody reads this answer.")
UNAUTHORIZED = Kind(
    "unauthorized", 401, "No valid API key", "Send one as X-API-Key, or as a bearer token."
)
RELOAD_NEEDS_KEYS = Kind(
    "reload-needs-keys",
    403,
    "Without API keys nobody may reload",
    "Set PERCEIVER_API_KEYS, or send the process SIGHUP.",
)
NOT_FOUND = Kind("not-found", 404, "No such page", "See /docs for what there is.")
MODEL_NOT_FOUND = Kind(
    "model-not-found", 404, "No such model or version", "See /metadata for the one that is served."
)
NO_PARTS = Kind("no-parts", 404, "This model reads one thing in a picture", "Ask /predict.")
METHOD_NOT_ALLOWED = Kind(
    "method-not-allowed", 405, "Method not allowed", "Use a method of the Allow header."
)
UPLOAD_STALLED = Kind("upload-stalled", 408, "The upload stalled", "Send the body without pause.")
RELOAD_FAILED = Kind(
    "reload-failed",
    409,
    "The checkpoint can't be used",
    "The one before still serves; mend the folder and try again.",
)
TOO_MANY_BYTES = Kind(
    "too-many-bytes", 413, "Too many bytes", "Send a smaller file; /metadata tells the limits."
)
TOO_MANY_PIXELS = Kind(
    "too-many-pixels", 413, "Too many pixels", "Send a smaller image; /metadata tells the limits."
)
UNSUPPORTED_CONTENT_TYPE = Kind(
    "unsupported-content-type",
    415,
    "Unsupported content type",
    "Send multipart/form-data, or to /predict an image with an image/* content type.",
)
UNSUPPORTED_ENCODING = Kind(
    "unsupported-encoding",
    415,
    "Unsupported content encoding",
    "Send the body as it is, or compressed by gzip or deflate.",
)
UNSUPPORTED_IMAGE = Kind(
    "unsupported-image", 415, "Not an image type we read", f"Send {', '.join(pillow.FORMATS)}."
)
UNREADABLE_IMAGE = Kind(
    "unreadable-image", 422, "The image can't be decoded", "Check that the file is whole."
)
HEAD_TOO_LARGE = Kind(
    "head-too-large", 431, "The request's head is too large", "Send fewer or shorter headers."
)
TOO_MANY_MARKS = Kind(
    "too-many-marks",
    422,
    "The picture shows more than a number",
    "Send the number alone, without the page around it.",
)
INTERNAL = Kind("internal", 500, "Internal error", "Report the X-Request-ID to the operator.")
NO_EXPLANATIONS = Kind(
    "no-explanations",
    501,
    "This model can't explain its answers",
    "Ask /predict, or have the operator serve a checkpoint with an explain.onnx.",
)
QUEUE_FULL = Kind("queue-full", 503, "Too many images are waiting", "Try again after a pause.")
TOO_MANY_CONNECTIONS = Kind(
    "too-many-connections", 503, "Too many connections", "Try again after a pause."
)
UPLOADS_FULL = Kind("uploads-full", 503, "Too many uploads at once", "Try again after a pause.")
NOT_READY = Kind("not-ready", 503, "Not ready", "Try again after a pause.")
ENGINE_STUCK = Kind("engine-stuck", 503, "The engine is stuck", "Restart the service.")
DEADLINE_EXCEEDED = Kind("deadline-exceeded", 504, "No answer in time", "Try again after a pause.")

KINDS = {kind.slug: kind for kind in globals().copy().values() if isinstance(kind, Kind)}

_KIND_OF_ERROR: Mapping[type[Exception], Kind] = {
    inputs.EmptyInputError: EMPTY_IMAGE,
    inputs.UnsupportedInputError: UNSUPPORTED_IMAGE,
    inputs.InputTooLargeError: TOO_MANY_PIXELS,
    inputs.UnreadableInputError: UNREADABLE_IMAGE,
    engines.NoExplanationsError: NO_EXPLANATIONS,
    inputs.TooManyPartsError: TOO_MANY_MARKS,
    batcher.QueueFullError: QUEUE_FULL,
    batcher.ClosedError: NOT_READY,
    batcher.DeadlineExceededError: DEADLINE_EXCEEDED,
}
_KIND_OF_STATUS = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}


class RequestError(Exception):
    """A request that is refused for what it is, with its kind and the detail for its sender."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def kind_of(error: Exception) -> Kind:
    """The cause of an error."""
    if isinstance(error, RequestError):
        return error.kind
    return _KIND_OF_ERROR.get(type(error), INTERNAL)


def describe(error: Exception, instance: str) -> Problem:
    """The problem that tells a caller of an error; nothing of our inside."""
    kind = kind_of(error)
    detail = "something went wrong on our side" if kind is INTERNAL else str(error)
    return _problem(kind, detail, instance)


def instance_of(path: str) -> str:
    """A path as the URI reference that problems name it by."""
    return quote(path, safe="/:@!$&'()*+,;=-._~")


def speaks_open_inference(path: str) -> bool:
    """Whether answers at a path are those of the Open Inference Protocol, errors included."""
    return path == "/v2" or path.startswith("/v2/")


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that carries a problem: as the Open Inference Protocol has it under /v2."""
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(RETRY_AFTER_S), **(headers or {})}
    content, media_type = problem.model_dump_json(), MEDIA_TYPE
    if speaks_open_inference(problem.instance):
        content, media_type = json.dumps({"error": problem.detail}), "application/json"
    response = _Refusal(content, problem.status, headers, media_type)
    response.reason = problem.type.rpartition("/")[2]
    return response


class _Refusal(Response):
    """Leaves its reason in the request's state, for who counts."""

    reason: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["reason"] = self.reason
        await super().__call__(scope, receive, send)


async def handle(request: Request, error: Exception) -> Response:
    """Exception handler of the application, for the errors it expects."""
    instance = instance_of(request.url.path)
    if not isinstance(error, HTTPException):
        return respond(describe(error, instance))
    path, method = request.url.path, request.method
    kind = _KIND_OF_STATUS[error.status_code]
    detail = f"there is no page {path}" if kind is NOT_FOUND else f"{path} does not answer {method}"
    return respond(_problem(kind, detail, instance), error.headers)


HANDLED = (
    engines.NoExplanationsError,
    inputs.InputError,
    batcher.BatcherError,
    RequestError,
    HTTPException,
)


def _problem(kind: Kind, detail: str, instance: str) -> Problem:
    return Problem(
        type=kind.uri, title=kind.title, status=kind.status, detail=detail, instance=instance
    )
