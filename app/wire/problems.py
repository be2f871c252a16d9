"""What can go wrong, as callers are told: problem details of RFC 9457, one row per cause."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Problem details of RFC 9457."""

    model_config = ConfigDict(defer_build=True)

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
    """A cause of errors.

    Attributes:
        slug: its name in the problem's `type`, in figures and in log lines.
        status: of HTTP.
        title: the cause in a few words.
        help: what a caller can do about it.
    """

    slug: str
    status: int
    title: str
    help: str = "Try again after a pause."

    @property
    def sample(self) -> str:
        """A detail as a caller may get it, for the OpenAPI document."""
        clauses = (text[0].lower() + text[1:].rstrip(".") for text in (self.title, self.help))
        return "; ".join(clauses)

    @property
    def explanation(self) -> str:
        """What it means, in plain words."""
        return f"{self.status} {self.title}\n\n{self.help}\n"

    def problem(self, detail: str, instance: str) -> Problem:
        """This cause at one place.

        Args:
            detail: what happened this time.
            instance: URI reference of what was asked for.
        """
        uri = f"/problems/{self.slug}"
        return Problem(
            type=uri, title=self.title, status=self.status, detail=detail, instance=instance
        )


class RequestError(Exception):
    """A request that is refused for what it is, with its kind and the detail for its sender."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


EMPTY_BODY = Kind("empty-body", 400, "The request has no body", "Send an image.")
EMPTY_IMAGE = Kind("empty-image", 400, "The image is empty", "Send a file that holds an image.")
WRONG_FIELD = Kind(
    "wrong-field",
    400,
    "Not the form field expected",
    "Send only the field file, or files to /predict/batch.",
)
TOO_MANY_FILES = Kind(
    "too-many-files",
    400,
    "Too many files in one request",
    "Send fewer; /metadata tells the limits.",
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
MALFORMED_BODY = Kind(
    "malformed-body", 400, "The body is not encoded as it says", "See its Content-Encoding."
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
NO_PARTS = Kind("no-parts", 404, "This model finds no parts in a picture", "Ask /predict.")
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
TOO_COSTLY = Kind(
    "too-costly",
    413,
    "Too much work to decode",
    "Save the image anew, or send fewer or smaller ones; /metadata tells the limits.",
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
    "unsupported-image",
    415,
    "Not an image type we read",
    "Send one of the formats that /metadata names.",
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
UNSUPPORTED_VERSION = Kind(
    "unsupported-version", 505, "Not a version of HTTP that is served", "Send HTTP/1.1."
)
QUEUE_FULL = Kind("queue-full", 503, "Too many images are waiting")
TOO_MANY_CONNECTIONS = Kind("too-many-connections", 503, "Too many connections")
UPLOADS_FULL = Kind("uploads-full", 503, "Too many uploads at once")
DECODERS_FULL = Kind("decoders-full", 503, "Too many pixels are waiting")
NOT_READY = Kind("not-ready", 503, "Not ready")
ENGINE_STUCK = Kind("engine-stuck", 503, "The engine is stuck", "Restart the service.")
DEADLINE_EXCEEDED = Kind("deadline-exceeded", 504, "No answer in time")

KINDS = {kind.slug: kind for kind in globals().copy().values() if isinstance(kind, Kind)}
