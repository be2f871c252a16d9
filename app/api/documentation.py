"""Parts of the OpenAPI description that calls share."""

from collections.abc import Mapping
from typing import Any

from app.problems import MEDIA_TYPE, Kind, speaks_open_inference
from app.schemas import InferError, Problem

REQUEST_ID_PARAMETER = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Comes back in the answer and in the log; else the service makes one up.",
    "schema": {"type": "string"},
}
HEADERS: dict[str, Any] = {
    "X-Request-ID": {
        "description": "Names this request in the log.",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    "Server-Timing": {
        "description": "Milliseconds: total, and of a prediction decode, preprocess, queue, infer "
        "(in a batch each of its slowest image).",
        "required": True,
        "schema": {"type": "string"},
    },
}
_RETRY_AFTER = {
    "description": "Seconds to wait before the next try.",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}


def errors(path: str, details: Mapping[Kind, str]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a call that may answer with these kinds of problem.

    Args:
        path: of the call.
        details: kind -> an example of its detail.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({kind.status for kind in details}):
        kinds = [kind for kind in details if kind.status == status]
        responses[status] = {
            "description": "; ".join(kind.title for kind in kinds),
            "headers": {**HEADERS, **({"Retry-After": _RETRY_AFTER} if status == 503 else {})},
        }
        if speaks_open_inference(path):
            responses[status]["model"] = InferError
            values = {kind: {"error": details[kind]} for kind in kinds}
            responses[status]["content"] = {
                "application/json": {"examples": _examples(values)},
            }
        else:
            values = {kind: _problem(kind, path, details[kind]) for kind in kinds}
            responses[status]["content"] = {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": _examples(values),
                }
            }
    return responses


def _problem(kind: Kind, path: str, detail: str) -> dict[str, Any]:
    return Problem(
        type=kind.uri, title=kind.title, status=kind.status, detail=detail, instance=path
    ).model_dump()


def _examples(values: Mapping[Kind, Any]) -> dict[str, Any]:
    return {kind.slug: {"summary": kind.title, "value": value} for kind, value in values.items()}
