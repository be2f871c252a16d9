"""What each call takes and answers, in one table; `app.wire.openapi` makes the document of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from app.wire import answers, open_inference, problems
from app.wire.problems import Kind
from app.wire.tensors import JSON_LENGTH

_BINARY = {"type": "string", "format": "binary"}


@dataclass(frozen=True)
class Contract:
    """What one call takes and answers.

    Attributes:
        tag: the heading in /docs that it stands under.
        summary: the call in a few words.
        answer: what a good answer holds, in a few words.
        model: of a good answer in JSON, None where there is none in JSON.
        problems: that it may answer with.
        body: of the request, as OpenAPI has it.
        content: media type -> a good answer that is not JSON, as OpenAPI has it.
        headers: of a good answer, besides those of all.
    """

    tag: str
    summary: str
    answer: str = "All is well"
    model: type[BaseModel] | None = None
    problems: Sequence[Kind] = ()
    body: Mapping[str, Any] | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)


def _form(field: str, schema: Mapping[str, Any], example: Any) -> dict[str, Any]:
    """A form of one field, as OpenAPI has it."""
    form = {
        "type": "object",
        "required": [field],
        "properties": {field: schema},
        "additionalProperties": False,
    }
    return {"multipart/form-data": {"schema": form, "example": {field: example}}}


def _text(example: str) -> dict[str, Any]:
    """Plain text, as OpenAPI has it."""
    return {"text/plain": {"schema": {"type": "string"}, "example": example}}


_BODY_PROBLEMS = (
    problems.EMPTY_BODY,
    problems.UPLOAD_STALLED,
    problems.TOO_MANY_FILES,
    problems.TOO_MANY_BYTES,
    problems.INTERNAL,
    problems.QUEUE_FULL,
    problems.UPLOADS_FULL,
    problems.NOT_READY,
    problems.DEADLINE_EXCEEDED,
)
_FORM_PROBLEMS = (
    *_BODY_PROBLEMS,
    problems.MALFORMED_FORM,
    problems.WRONG_FIELD,
    problems.UNSUPPORTED_CONTENT_TYPE,
)
_PICTURE_PROBLEMS = (
    problems.EMPTY_IMAGE,
    problems.TOO_MANY_PIXELS,
    problems.TOO_COSTLY,
    problems.DECODERS_FULL,
    problems.UNSUPPORTED_IMAGE,
    problems.UNREADABLE_IMAGE,
)
_IMAGE_PROBLEMS = (*_FORM_PROBLEMS, *_PICTURE_PROBLEMS)

_IMAGE = {
    "required": True,
    "description": "The image in the form field `file`, or as the body itself.",
    "content": {
        **_form("file", _BINARY, example="7.png"),
        "image/*": {"schema": _BINARY, "example": "the bytes of 7.png"},
    },
}
_IMAGES = {
    "required": True,
    "content": _form(
        "files", {"type": "array", "items": _BINARY, "minItems": 1}, example=["7.png", "2.png"]
    ),
}
_TENSORS = {
    "required": True,
    "description": "One input: `image`, or `picture`, whose elements are base64 text in JSON. "
    f"With the header {JSON_LENGTH} the body is JSON of so many bytes, then the tensors of "
    "the inputs with `parameters.binary_data_size`. It may be compressed by gzip or deflate.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "parameters": {"type": "object"},
                    "inputs": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {"$ref": "#/components/schemas/InferData"},
                    },
                    "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
                },
            },
            "example": {
                "inputs": [
                    {"name": "picture", "shape": [1], "datatype": "BYTES", "data": ["R0lGODdh"]}
                ]
            },
        }
    },
}
_FIGURES = """\
# HELP perceiver_predictions_total Answers, by label.
# TYPE perceiver_predictions_total counter
perceiver_predictions_total{label="7"} 1.0
"""


_PROTOCOL = "open inference protocol"
_LIVE = Contract(
    tag="health",
    summary="Is the process alive?",
    model=answers.HealthAnswer,
    problems=(problems.ENGINE_STUCK,),
)
_READY = replace(_LIVE, summary="Can it answer now?", problems=(problems.NOT_READY,))
_MODEL = Contract(
    tag=_PROTOCOL,
    summary="What the model takes and gives",
    answer="Its tensors",
    model=open_inference.InferModel,
    problems=(problems.MODEL_NOT_FOUND, problems.NOT_READY),
)
_MODEL_READY = replace(
    _MODEL,
    summary="Can the model answer now?",
    answer=_READY.answer,
    model=open_inference.InferModelReady,
)
_INFER = Contract(
    tag=_PROTOCOL,
    summary="Classify images",
    answer="The outputs asked for, else all. As application/octet-stream where one is wanted in "
    f"binary form: JSON of as many bytes as {JSON_LENGTH} says, then the tensors.",
    model=open_inference.InferAnswer,
    problems=(
        *_BODY_PROBLEMS,
        *_PICTURE_PROBLEMS,
        problems.MALFORMED_INFERENCE,
        problems.MODEL_NOT_FOUND,
        problems.UNSUPPORTED_ENCODING,
    ),
    body=_TENSORS,
)

CONTRACTS: Mapping[str, Contract] = {
    "/predict": Contract(
        tag="predict",
        summary="Classify one image",
        answer="What the model reads",
        model=answers.PredictAnswer,
        problems=_IMAGE_PROBLEMS,
        body=_IMAGE,
    ),
    "/predict/batch": Contract(
        tag="predict",
        summary="Classify several images",
        answer="What the model reads in each image, or why it can't",
        model=answers.BatchAnswer,
        problems=_FORM_PROBLEMS,
        body=_IMAGES,
    ),
    "/explain": Contract(
        tag="predict",
        summary="Classify one image and tell why",
        answer="What the model reads, what it saw, where it looked and what counted: "
        "as JSON, or with `Accept: image/png` as a picture",
        model=answers.ExplainAnswer,
        problems=(*_IMAGE_PROBLEMS, problems.NO_EXPLANATIONS),
        body=_IMAGE,
        content={"image/png": {"schema": _BINARY, "example": "the bytes of a PNG"}},
        headers={"Vary": {"description": "Accept", "required": True, "schema": {"type": "string"}}},
    ),
    "/read": Contract(
        tag="predict",
        summary="Read a picture of several things, such as a number",
        answer="What the picture says",
        model=answers.ReadAnswer,
        problems=(*_IMAGE_PROBLEMS, problems.NO_PARTS, problems.TOO_MANY_MARKS),
        body=_IMAGE,
    ),
    "/health/live": _LIVE,
    "/health/ready": _READY,
    "/health": replace(_READY, summary="As /health/ready"),
    "/metadata": Contract(
        tag="metadata",
        summary="The model and what serves it",
        answer="The model's card and the service's limits",
        model=answers.MetadataAnswer,
        problems=(problems.NOT_READY,),
    ),
    "/problems/{slug}": Contract(
        tag="metadata",
        summary="What a problem's type means",
        answer="In plain words",
        problems=(problems.NOT_FOUND,),
        content=_text(problems.QUEUE_FULL.explanation),
    ),
    "/metrics": Contract(
        tag="metrics",
        summary="Figures for Prometheus",
        answer="In Prometheus' text format, or as OpenMetrics where that is accepted",
        content=_text(_FIGURES),
    ),
    "/admin/reload": Contract(
        tag="admin",
        summary="Serve what the checkpoint folder holds now",
        answer="What serves from now on",
        model=answers.ReloadAnswer,
        problems=(
            problems.UNAUTHORIZED,
            problems.RELOAD_NEEDS_KEYS,
            problems.RELOAD_FAILED,
            problems.NOT_READY,
        ),
    ),
    "/v2": Contract(
        tag=_PROTOCOL,
        summary="What serves",
        answer="Name, version and extensions of the server",
        model=open_inference.InferServer,
    ),
    "/v2/health/live": replace(_LIVE, tag=_PROTOCOL, model=open_inference.InferLive),
    "/v2/health/ready": replace(_READY, tag=_PROTOCOL, model=open_inference.InferReady),
    "/v2/models/{name}": _MODEL,
    "/v2/models/{name}/versions/{version}": replace(
        _MODEL, summary="What this version of the model takes and gives"
    ),
    "/v2/models/{name}/ready": _MODEL_READY,
    "/v2/models/{name}/versions/{version}/ready": replace(
        _MODEL_READY, summary="Can this version of the model answer now?"
    ),
    "/v2/models/{name}/infer": _INFER,
    "/v2/models/{name}/versions/{version}/infer": replace(
        _INFER, summary="Classify images with this version of the model"
    ),
}


def contract(path: str) -> dict[str, Any]:
    """What a router's decorator takes for the call at a path of the table."""
    found = CONTRACTS[path]
    return {"path": path, "summary": found.summary, "tags": [found.tag]}
