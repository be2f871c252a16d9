"""A typed client of the service: `from app.client import Client, AsyncClient`.

Needs httpx (the extra `client`) and nothing of the server. What the service refuses for now (503,
429) and connections that fail are tried again, after the pause that the service asks for; what it
refuses for good is a `ProblemError`, one subclass per cause.
"""

import random
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Self, TypeVar

import anyio
import httpx

Image = bytes | str | Path | BinaryIO  # content, a path, or an open file
_File = tuple[str, tuple[str, bytes]]  # form field, file name, content
T = TypeVar("T")

RETRIES = 4
TIMEOUT_S = 30.0
LONGEST_PAUSE_S = 30.0
FIRST_PAUSE_S = 0.1  # doubled each time, where the service names none


class ClientError(Exception):
    """A call came to nothing."""


class ConnectionFailedError(ClientError):
    """The service can't be reached."""


class TimedOutError(ClientError):
    """No answer came in time."""


class UnexpectedAnswerError(ClientError):
    """What answers is not this service, or not in a version that the client knows."""


class ProblemError(ClientError):
    """The service refused, and said why (RFC 9457).

    Attributes:
        type, title, status, detail, instance: as the service told them.
        retry_after_s: the pause that it asks for, if any.
        request_id: names the request in the service's log; empty for an image of a batch.
    """

    slug: ClassVar[str] = ""
    _of_slug: ClassVar[dict[str, type["ProblemError"]]] = {}

    def __init_subclass__(cls) -> None:
        ProblemError._of_slug[cls.slug] = cls

    def __init__(
        self, problem: dict[str, Any], retry_after_s: float | None = None, request_id: str = ""
    ) -> None:
        self.type = str(problem.get("type", "about:blank"))
        self.title = str(problem.get("title", ""))
        self.status = int(problem.get("status", 0))
        self.detail = str(problem.get("detail", ""))
        self.instance = str(problem.get("instance", ""))
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        super().__init__(f"{self.title}: {self.detail}" if self.detail else self.title)

    @staticmethod
    def of(
        problem: dict[str, Any], retry_after_s: float | None = None, request_id: str = ""
    ) -> "ProblemError":
        """The subclass of the problem's type."""
        slug = str(problem.get("type", "")).rpartition("/")[2]
        kind = ProblemError._of_slug.get(slug, ProblemError)
        return kind(problem, retry_after_s, request_id)


class EmptyImageError(ProblemError):
    """The image has no bytes."""

    slug = "empty-image"


class UnsupportedImageError(ProblemError):
    """The image is of no type that is read."""

    slug = "unsupported-image"


class UnreadableImageError(ProblemError):
    """The image is truncated or broken."""

    slug = "unreadable-image"


class TooManyBytesError(ProblemError):
    """The image or the request is too large."""

    slug = "too-many-bytes"


class TooManyPixelsError(ProblemError):
    """The image has too many pixels."""

    slug = "too-many-pixels"


class TooManyMarksError(ProblemError):
    """The picture shows more than a number."""

    slug = "too-many-marks"


class NoExplanationsError(ProblemError):
    """The model that is served can't explain."""

    slug = "no-explanations"


class UnauthorizedError(ProblemError):
    """The API key is missing or wrong."""

    slug = "unauthorized"


class QueueFullError(ProblemError):
    """Too many images are waiting."""

    slug = "queue-full"


class NotReadyError(ProblemError):
    """The service starts or stops."""

    slug = "not-ready"


class DeadlineExceededError(ProblemError):
    """The service had no answer in time."""

    slug = "deadline-exceeded"


class InternalError(ProblemError):
    """Something went wrong in the service; its log knows `request_id`."""

    slug = "internal"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model reads in one image."""

    digit: int | None
    label: str
    confidence: float
    probabilities: tuple[float, ...]
    recognized: bool
    novelty: float


@dataclass(frozen=True, slots=True)
class BlockAttention:
    """Where one block's latents looked; maps are rows of numbers that sum to 1."""

    mean: list[list[float]]
    latents: list[list[list[float]]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A prediction, what the model saw, where it looked, and the ink that the answer rests on."""

    prediction: Prediction
    input: list[list[int]]
    attention: list[list[float]]  # mean of all blocks and latents
    blocks: tuple[BlockAttention, ...]
    attribution: list[list[float]]  # nats; see `method`
    method: str


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels of the upright picture, from its top left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class PlacedDigit:
    """One digit of a number."""

    prediction: Prediction
    box: Box


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a picture."""

    text: str
    confidence: float
    digits: tuple[PlacedDigit, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """What a picture says."""

    text: str
    lines: tuple[Line, ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on requests."""

    max_bytes: int
    max_pixels: int
    max_files: int
    max_body_bytes: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """The model and what serves it."""

    name: str
    version: str
    labels: tuple[str, ...]
    engine: str
    device: str
    limits: Limits
    card: dict[str, Any]


# What a call does, without doing it: yields a request to send or seconds to wait; is sent the
# answer, or the error of the transport.
_Flow = Generator[httpx.Request | float, httpx.Response | httpx.TransportError | None, T]


class _Calls:
    """The calls as flows, which `Client` and `AsyncClient` carry out."""

    def __init__(self, url: str, api_key: str | None, retries: int) -> None:
        self._url = url.rstrip("/")
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._retries = retries
        self._limits: Limits | None = None

    def _ask(
        self, method: str, path: str, files: list[_File] | None = None
    ) -> _Flow[httpx.Response]:
        """One answer that is no error, tried for as often as may be."""
        pause = FIRST_PAUSE_S
        for left in range(self._retries, -1, -1):
            request = httpx.Request(method, self._url + path, headers=self._headers, files=files)
            answer = yield request
            if isinstance(answer, httpx.TimeoutException) and not isinstance(
                answer, httpx.ConnectTimeout
            ):
                raise TimedOutError(f"no answer from {self._url} in time") from answer
            if isinstance(answer, httpx.TransportError):
                if not left or isinstance(answer, httpx.UnsupportedProtocol):
                    raise ConnectionFailedError(f"{self._url}: {answer}") from answer
                wait = None
            else:
                assert isinstance(answer, httpx.Response)
                if answer.is_success:
                    return answer
                error = _error_of(answer)
                wait = error.retry_after_s
                if answer.status_code not in (429, 503) or not left:
                    raise error
                if wait is not None and wait > LONGEST_PAUSE_S:
                    raise error
            yield (pause if wait is None else wait) * random.uniform(1.0, 1.25)
            pause *= 2
        raise AssertionError("unreachable")

    def _predict(self, image: Image) -> _Flow[Prediction]:
        answer = yield from self._json("/predict", _one(image))
        with _expected("/predict"):
            return _prediction(answer)

    def _predict_batch(self, images: Iterable[Image]) -> _Flow[list[Prediction | ProblemError]]:
        limits = self._limits or (yield from self._metadata()).limits
        results: list[Prediction | ProblemError] = []
        for part in _parts([_content(image) for image in images], limits):
            files = [("files", (f"{index}", content)) for index, content in enumerate(part)]
            try:
                answer = yield from self._json("/predict/batch", files)
            except TooManyBytesError as error:
                if len(part) > 1:
                    raise
                results.append(error)  # an image larger than all that a request may carry
                continue
            with _expected("/predict/batch"):
                results += [
                    ProblemError.of(item["error"]) if "error" in item else _prediction(item)
                    for item in answer["predictions"]
                ]
        return results

    def _explain(self, image: Image) -> _Flow[Explanation]:
        answer = yield from self._json("/explain", _one(image))
        with _expected("/explain"):
            attention, attribution = answer["attention"], answer["attribution"]
            return Explanation(
                prediction=_prediction(answer),
                input=answer["input"],
                attention=attention["mean"],
                blocks=tuple(
                    BlockAttention(block["mean"], block["latents"]) for block in attention["blocks"]
                ),
                attribution=attribution["map"],
                method=attribution["method"],
            )

    def _read(self, image: Image) -> _Flow[Number]:
        answer = yield from self._json("/read", _one(image))
        with _expected("/read"):
            lines = tuple(
                Line(
                    line["text"],
                    line["confidence"],
                    tuple(PlacedDigit(_prediction(d), Box(**d["box"])) for d in line["digits"]),
                )
                for line in answer["lines"]
            )
            return Number(answer["text"], lines, answer["width"], answer["height"])

    def _metadata(self) -> _Flow[Metadata]:
        response = yield from self._ask("GET", "/metadata")
        answer = _parsed(response)
        with _expected("/metadata"):
            card, limits = answer["card"], answer["limits"]
            self._limits = Limits(
                **{name: int(limits[name]) for name in Limits.__dataclass_fields__}
            )
            return Metadata(
                card["name"],
                card["version"],
                tuple(card["labels"]),
                answer["engine"]["name"],
                answer["engine"]["device"],
                self._limits,
                card,
            )

    def _health(self) -> _Flow[bool]:
        answer = yield httpx.Request("GET", self._url + "/health", headers=self._headers)
        return isinstance(answer, httpx.Response) and answer.is_success

    def _json(self, path: str, files: list[_File]) -> _Flow[dict[str, Any]]:
        response = yield from self._ask("POST", path, files=files)
        return _parsed(response)


class Client(_Calls):
    """Asks the service; use it as a context manager, or call `close`.

    Args:
        url: of the service, such as http://127.0.0.1:8000.
        api_key: where the service wants one.
        timeout_s: for each try.
        retries: further tries of what is refused for now, and of connections that fail.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        super().__init__(url, api_key, retries)
        self._http = httpx.Client(timeout=timeout_s)

    def predict(self, image: Image) -> Prediction:
        """The digit in one image. Raises ClientError, as all calls do."""
        return self._run(self._predict(image))

    def predict_batch(self, images: Iterable[Image]) -> list[Prediction | ProblemError]:
        """The digits in any number of images, in order; one that can't be read has its error.

        Asked in as many requests as the service's limits take.
        """
        return self._run(self._predict_batch(images))

    def explain(self, image: Image) -> Explanation:
        """The digit in one image, and why."""
        return self._run(self._explain(image))

    def read(self, image: Image) -> Number:
        """All digits of a picture."""
        return self._run(self._read(image))

    def metadata(self) -> Metadata:
        """The model and what serves it."""
        return self._run(self._metadata())

    def health(self) -> bool:
        """Whether the service can answer now; asked once."""
        return self._run(self._health())

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, flow: _Flow[T]) -> T:
        answer: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                wanted = flow.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(wanted, float):
                time.sleep(wanted)
                answer = None
                continue
            try:
                answer = self._http.send(_timed(wanted, self._http.timeout))
            except httpx.TransportError as error:
                answer = error


class AsyncClient(_Calls):
    """As `Client`, to be awaited."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        super().__init__(url, api_key, retries)
        self._http = httpx.AsyncClient(timeout=timeout_s)

    async def predict(self, image: Image) -> Prediction:
        """See `Client.predict`."""
        return await self._run(self._predict(image))

    async def predict_batch(self, images: Iterable[Image]) -> list[Prediction | ProblemError]:
        """See `Client.predict_batch`."""
        return await self._run(self._predict_batch(images))

    async def explain(self, image: Image) -> Explanation:
        """See `Client.explain`."""
        return await self._run(self._explain(image))

    async def read(self, image: Image) -> Number:
        """See `Client.read`."""
        return await self._run(self._read(image))

    async def metadata(self) -> Metadata:
        """See `Client.metadata`."""
        return await self._run(self._metadata())

    async def health(self) -> bool:
        """See `Client.health`."""
        return await self._run(self._health())

    async def close(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, flow: _Flow[T]) -> T:
        answer: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                wanted = flow.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(wanted, float):
                await anyio.sleep(wanted)
                answer = None
                continue
            try:
                answer = await self._http.send(_timed(wanted, self._http.timeout))
            except httpx.TransportError as error:
                answer = error


def _timed(request: httpx.Request, timeout: httpx.Timeout) -> httpx.Request:
    request.extensions["timeout"] = timeout.as_dict()
    return request


def _content(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    return image.read()


def _one(image: Image) -> list[_File]:
    return [("file", ("image", _content(image)))]


def _parts(contents: Sequence[bytes], limits: Limits) -> Iterable[list[bytes]]:
    """Batches within the limits on files and bytes of one request, in order."""
    room = limits.max_body_bytes - 1024
    part: list[bytes] = []
    size = 0
    for content in contents:
        length = len(content) + 256  # the part's header
        if part and (len(part) == limits.max_files or size + length > room):
            yield part
            part, size = [], 0
        part.append(content)
        size += length
    if part:
        yield part


@contextmanager
def _expected(path: str) -> Iterator[None]:
    """Inside, an answer is taken apart."""
    try:
        yield
    except (KeyError, TypeError) as error:
        raise UnexpectedAnswerError(f"the answer of {path} lacks {error}") from error


def _prediction(item: dict[str, Any]) -> Prediction:
    return Prediction(
        digit=item["digit"],
        label=item["label"],
        confidence=item["confidence"],
        probabilities=tuple(item["probabilities"]),
        recognized=item["recognized"],
        novelty=item["novelty"],
    )


def _parsed(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError as error:
        raise UnexpectedAnswerError(f"{response.url} does not answer in JSON") from error
    if not isinstance(answer, dict):
        raise UnexpectedAnswerError(f"{response.url} does not answer with an object")
    return answer


def _error_of(response: httpx.Response) -> ProblemError:
    """The error that a refusal tells, problem details or not."""
    problem: dict[str, Any] = {"title": response.reason_phrase, "status": response.status_code}
    try:
        told = response.json()
        problem |= told if isinstance(told, dict) else {}
    except ValueError:
        pass
    wait = _seconds(response.headers.get("retry-after"))
    return ProblemError.of(problem, wait, response.headers.get("x-request-id", ""))


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header (RFC 9110, section 10.2.3): seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    # Without a zone it is UTC.
    date = date.replace(tzinfo=date.tzinfo or UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
