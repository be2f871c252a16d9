"""Parts of the OpenAPI description that calls share."""

from collections.abc import Callable, Mapping
from typing import Any

from app.wire.answers import InferError
from app.wire.problems import (
    DEADLINE_EXCEEDED,
    EMPTY_BODY,
    EMPTY_IMAGE,
    INTERNAL,
    MALFORMED_FORM,
    MEDIA_TYPE,
    NOT_READY,
    QUEUE_FULL,
    TOO_MANY_BYTES,
    TOO_MANY_FILES,
    TOO_MANY_PIXELS,
    UNAUTHORIZED,
    UNREADABLE_IMAGE,
    UNSUPPORTED_CONTENT_TYPE,
    UNSUPPORTED_IMAGE,
    UPLOAD_STALLED,
    WRONG_FIELD,
    Kind,
    Problem,
    speaks_open_inference,
)

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

BINARY = {"type": "string", "format": "binary"}
IMAGE_BODY: dict[str, Any] = {
    "required": True,
    "description": "The image in the form field `file`, or as the body itself.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": BINARY},
                "additionalProperties": False,
            },
            "example": {"file": "7.png"},
        },
        "image/*": {"schema": BINARY, "example": "the bytes of 7.png"},
    },
}
REQUEST_ERRORS = {
    EMPTY_BODY: "the request has no body; send an image",
    MALFORMED_FORM: "the form ends before its closing boundary",
    UPLOAD_STALLED: "nothing arrived for 10 s",
    UNSUPPORTED_CONTENT_TYPE: "the content type is text/plain; send multipart/form-data",
    INTERNAL: "something went wrong on our side",
    QUEUE_FULL: "1024 images are waiting, as many as may",
    NOT_READY: "the service is shutting down",
    DEADLINE_EXCEEDED: "the answer was not ready in time",
}
# Of calls that take one image.
IMAGE_ERRORS = {
    **REQUEST_ERRORS,
    EMPTY_IMAGE: "the image is empty: it has no bytes",
    WRONG_FIELD: "there is a field 'image'; send only 'file'",
    TOO_MANY_FILES: "more than 1 file(s) in the field 'file'",
    TOO_MANY_BYTES: "the body has more than 10,485,760 bytes",
    TOO_MANY_PIXELS: "the image has 9000 x 9000 pixels, more than the 25,000,000 allowed",
    UNSUPPORTED_IMAGE: "the image is of none of the types read: PNG, JPEG, GIF, BMP, WEBP, TIFF",
    UNREADABLE_IMAGE: "the PNG image is truncated or broken",
}


_CHALLENGE = {
    "description": "What to authenticate with (RFC 6750).",
    "required": True,
    "schema": {"type": "string"},
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


def require_keys(document: dict[str, Any], is_open: Callable[[str], bool]) -> None:
    """Adds to an OpenAPI document that calls need an API key.

    Args:
        document: changed in place.
        is_open: whether a path needs none.
    """
    document.setdefault("components", {})["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    for path, calls in document["paths"].items():
        if is_open(path):
            continue
        for call in calls.values():
            call["security"] = [{"key": []}, {"bearer": []}]
            (refusal,) = errors(path, {UNAUTHORIZED: "the API key is not valid"}).values()
            refusal["headers"] = {**refusal["headers"], "WWW-Authenticate": _CHALLENGE}
            if "model" in refusal:
                name = refusal.pop("model").__name__
                schema = {"schema": {"$ref": f"#/components/schemas/{name}"}}
                refusal["content"]["application/json"].update(schema)
            call["responses"]["401"] = refusal
