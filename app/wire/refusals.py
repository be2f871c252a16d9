"""How an error becomes an answer: the kind of problem that an exception is, and its response."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

import model.modalities as inputs
from app.inference import batcher, budgets, decoders, engines
from app.wire import problems
from app.wire.problems import Kind, Problem, RequestError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

_KIND_OF_ERROR: Mapping[type[Exception], Kind] = {
    inputs.EmptyInputError: problems.EMPTY_IMAGE,
    inputs.UnsupportedInputError: problems.UNSUPPORTED_IMAGE,
    inputs.InputTooLargeError: problems.TOO_MANY_PIXELS,
    inputs.InputTooCostlyError: problems.TOO_COSTLY,
    inputs.UnreadableInputError: problems.UNREADABLE_IMAGE,
    engines.NoExplanationsError: problems.NO_EXPLANATIONS,
    inputs.TooManyPartsError: problems.TOO_MANY_MARKS,
    batcher.QueueFullError: problems.QUEUE_FULL,
    batcher.ClosedError: problems.NOT_READY,
    budgets.UploadsFullError: problems.UPLOADS_FULL,
    budgets.DecodersFullError: problems.DECODERS_FULL,
    decoders.NoDecoderError: problems.NOT_READY,
    batcher.DeadlineExceededError: problems.DEADLINE_EXCEEDED,
}
HANDLED = (*_KIND_OF_ERROR, RequestError, HTTPException)  # whatever else is raised is our fault


def kind_of(error: Exception) -> Kind:
    """The cause of an error."""
    if isinstance(error, RequestError):
        return error.kind
    return _KIND_OF_ERROR.get(type(error), problems.INTERNAL)


def describe(error: Exception, instance: str) -> Problem:
    """The problem that tells a caller of an error; nothing of our inside."""
    kind = kind_of(error)
    detail = "something went wrong on our side" if kind is problems.INTERNAL else str(error)
    return kind.problem(detail, instance)


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
    """Exception handler of the application, for the errors in `HANDLED`."""
    path, method = request.url.path, request.method
    instance = instance_of(path)
    if not isinstance(error, HTTPException):
        return respond(describe(error, instance))
    if error.status_code == HTTPStatus.NOT_FOUND:
        problem = problems.NOT_FOUND.problem(f"there is no page {path}", instance)
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        problem = problems.METHOD_NOT_ALLOWED.problem(f"{path} does not answer {method}", instance)
    else:
        problem = describe(error, instance)
    return respond(problem, error.headers)
