"""The calls of the service, without doing them: what to send, how often, and what to make of it.

What the service refuses for now (429, 503) and connections that fail are tried again, after the
pause that the service asks for. What it refuses for good is a `ProblemError`.
"""

import random
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import httpx
from pydantic import ValidationError

from app.client import errors
from app.client.answers import Answer, Batch, Explanation, Limits, Metadata, Number, Prediction
from app.client.errors import ClientError, ProblemError
from model.checkpoint.config import validation_sentence

T = TypeVar("T")
Some = TypeVar("Some", bound=Answer)
Image = bytes | str | Path | BinaryIO  # content, a path, or an open file
Outcome = httpx.Response | httpx.TransportError
# Yields a request to send or seconds to wait; is sent what came of the request, or None.
Flow = Generator[httpx.Request | float, Outcome | None, T]

_File = tuple[str, tuple[str, bytes]]  # form field, file name, content

LONGEST_PAUSE_S = 30.0
FIRST_PAUSE_S = 0.1  # doubled each time, where the service names none


class Calls:
    """The calls as flows, which `Client` and `AsyncClient` carry out.

    Args:
        url: of the service.
        api_key: where the service wants one.
        timeout: of each try.
        retries: further tries of what is refused for now, and of connections that fail.
    """

    def __init__(self, url: str, api_key: str | None, timeout: httpx.Timeout, retries: int) -> None:
        self._url = url.rstrip("/")
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._extensions = {"timeout": timeout.as_dict()}
        self._retries = retries
        self._limits: Limits | None = None

    def predict(self, image: Image) -> Flow[Prediction]:
        """POST /predict."""
        return self._ask_of_image("/predict", image, Prediction)

    def explain(self, image: Image) -> Flow[Explanation]:
        """POST /explain."""
        return self._ask_of_image("/explain", image, Explanation)

    def read(self, image: Image) -> Flow[Number]:
        """POST /read."""
        return self._ask_of_image("/read", image, Number)

    def predict_batch(self, images: Iterable[Image]) -> Flow[list[Prediction | ProblemError]]:
        """POST /predict/batch, as often as the service's limits ask for."""
        limits = self._limits or (yield from self.metadata()).limits
        results: list[Prediction | ProblemError] = []
        for batch in _batches([_content(image) for image in images], limits):
            files = [("files", (str(index), content)) for index, content in enumerate(batch)]
            try:
                answer = yield from self._ask("POST", "/predict/batch", Batch, files)
            except errors.TooManyBytesError as error:
                if len(batch) > 1:
                    raise
                results.append(error)  # an image larger than all that a request may carry
            else:
                results += [
                    each if isinstance(each, Prediction) else ProblemError.of(each.error)
                    for each in answer.predictions
                ]
        return results

    def metadata(self) -> Flow[Metadata]:
        """GET /metadata."""
        metadata = yield from self._ask("GET", "/metadata", Metadata)
        self._limits = metadata.limits
        return metadata

    def health(self) -> Flow[bool]:
        """GET /health, once."""
        answer = yield self._request("GET", "/health")
        return isinstance(answer, httpx.Response) and answer.is_success

    def _ask_of_image(self, path: str, image: Image, kind: type[Some]) -> Flow[Some]:
        return self._ask("POST", path, kind, [("file", ("image", _content(image)))])

    def _ask(
        self, method: str, path: str, kind: type[Some], files: list[_File] | None = None
    ) -> Flow[Some]:
        """One answer, parsed."""
        response = yield from self._try(method, path, files)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            wrong = f"{response.url} answers otherwise: {validation_sentence(error)}"
            raise errors.UnexpectedAnswerError(wrong) from error

    def _try(self, method: str, path: str, files: list[_File] | None) -> Flow[httpx.Response]:
        """One response that is no error, tried for as often as may be."""
        pause = FIRST_PAUSE_S
        for left in range(self._retries, -1, -1):
            outcome = yield self._request(method, path, files)
            assert outcome is not None
            wait = None
            if isinstance(outcome, httpx.TransportError):
                error = self._error(outcome)
                late = isinstance(error, errors.TimedOutError)  # and would be late again
                if late or not left or isinstance(outcome, httpx.UnsupportedProtocol):
                    raise error from outcome
            elif outcome.is_success:
                return outcome
            else:
                refusal = ProblemError.of_response(outcome)
                wait = refusal.retry_after_s
                for_now = outcome.status_code in (429, 503) and (wait or 0) <= LONGEST_PAUSE_S
                if not left or not for_now:
                    raise refusal
            yield (pause if wait is None else wait) * random.uniform(1.0, 1.25)
            pause *= 2
        raise AssertionError("unreachable")

    def _request(self, method: str, path: str, files: list[_File] | None = None) -> httpx.Request:
        url, extensions = self._url + path, self._extensions
        return httpx.Request(method, url, headers=self._headers, files=files, extensions=extensions)

    def _error(self, error: httpx.TransportError) -> ClientError:
        """Late where the connection was there, and the answer was not."""
        late = isinstance(error, httpx.TimeoutException)
        if late and not isinstance(error, httpx.ConnectTimeout):
            return errors.TimedOutError(f"no answer from {self._url} in time")
        return errors.ConnectionFailedError(f"{self._url}: {error}")


def _content(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    return image.read()


def _batches(contents: Sequence[bytes], limits: Limits) -> Iterable[list[bytes]]:
    """Batches within the limits on files and bytes of one request, in order."""
    room = limits.max_body_bytes - 1024
    batch: list[bytes] = []
    size = 0
    for content in contents:
        length = len(content) + 256  # the part's header
        if batch and (len(batch) == limits.max_files or size + length > room):
            yield batch
            batch, size = [], 0
        batch.append(content)
        size += length
    if batch:
        yield batch
