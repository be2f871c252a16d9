"""The OpenAPI document, made of the table in `app.wire.contracts` when it is first asked for."""

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from app.wire.contracts import CONTRACTS, Contract
from app.wire.open_inference import InferError
from app.wire.problems import UNAUTHORIZED, Kind, Problem
from app.wire.refusals import respond, speaks_open_inference

_SCHEMAS = "#/components/schemas/{model}"
_JSON = "application/json"
_TEXT = {"type": "string"}


def _header(description: str, **schema: Any) -> dict[str, Any]:
    """A header that an answer always has, as OpenAPI tells of it."""
    return {"description": description, "required": True, "schema": {"type": "string", **schema}}


_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Comes back in the answer and in the log; else the service makes one up.",
    "schema": _TEXT,
}
_IN_PATH = {
    "name": {"description": "the model's name", "example": "perceiver-mnist"},
    "version": {"description": "its version", "example": "1.0.0"},
    "slug": {"description": "the last part of a problem's type", "example": "queue-full"},
}
_HEADERS = {
    "X-Request-ID": _header("Names this request in the log.", minLength=1, maxLength=128),
    "Server-Timing": _header(
        "Milliseconds: total, and of a prediction decode, preprocess, queue, infer "
        "(in a batch each of its slowest image)."
    ),
}
_HEADERS_OF_STATUS = {
    401: {"WWW-Authenticate": _header("What to authenticate with (RFC 6750).")},
    503: {
        "Retry-After": _header("Seconds to wait before the next try.", type="integer", minimum=0)
    },
}
_SECURITY_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}


def describe(app: FastAPI, needs_key: Callable[[str], bool]) -> None:
    """Has an application tell its contracts at /openapi.json.

    Args:
        app: whose documented calls are all in the table.
        needs_key: whether the call at a path needs an API key.
    """

    @cache
    def openapi() -> dict[str, Any]:
        document = FastAPI.openapi(app)
        components = document["components"] = {"schemas": _schemas()}
        for path, calls in document["paths"].items():
            for call in calls.values():
                call.update(_call(path, CONTRACTS[path]))
                if needs_key(path):
                    components["securitySchemes"] = _SECURITY_SCHEMES
                    call["security"] = [{name: []} for name in _SECURITY_SCHEMES]
                    call["responses"]["401"] = _refusal(path, [UNAUTHORIZED])
        return document

    # Replacing the method is how FastAPI has its document extended.
    app.openapi = openapi  # type: ignore[method-assign]


def _schemas() -> dict[str, Any]:
    """Of all answers, by their names."""
    models: set[type[BaseModel]] = {Problem, InferError}
    models |= {contract.model for contract in CONTRACTS.values() if contract.model}
    named: list[tuple[type[BaseModel], JsonSchemaMode]]
    named = [(model, "serialization") for model in models]
    schemas: dict[str, Any] = models_json_schema(named, ref_template=_SCHEMAS)[1]["$defs"]
    return schemas


def _call(path: str, contract: Contract) -> dict[str, Any]:
    """What the table says of a call, as OpenAPI has it."""
    content = dict(contract.content)
    if contract.model:
        content[_JSON] = {"schema": _reference(contract.model)}
    good = {
        "description": contract.answer,
        "headers": {**_HEADERS, **contract.headers},
        "content": content,
    }
    kinds = contract.problems
    refusals = {
        str(status): _refusal(path, [kind for kind in kinds if kind.status == status])
        for status in sorted({kind.status for kind in kinds})
    }
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT, **_IN_PATH[name]}
        for name in re.findall(r"{(\w+)}", path)
    ]
    body = {"requestBody": contract.body} if contract.body else {}
    return {"parameters": [*in_path, _REQUEST_ID], **body, "responses": {"200": good, **refusals}}


def _refusal(path: str, kinds: Sequence[Kind]) -> dict[str, Any]:
    """The answer of one status that tells of a problem of any of these kinds."""
    instance = re.sub(r"{\w+}", "nothing", path)
    examples = {}
    for kind in kinds:
        response = respond(kind.problem(kind.sample, instance))
        examples[kind.slug] = {"summary": kind.title, "value": json.loads(bytes(response.body))}
    schema = _reference(InferError if speaks_open_inference(path) else Problem)
    return {
        "description": "; ".join(kind.title for kind in kinds),
        "headers": {**_HEADERS, **_HEADERS_OF_STATUS.get(response.status_code, {})},
        "content": {response.media_type: {"schema": schema, "examples": examples}},
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS.format(model=model.__name__)}
