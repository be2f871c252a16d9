"""What can go wrong in a call: one exception for each cause."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import httpx


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

    def __init_subclass__(cls, slug: str) -> None:
        cls.slug = slug
        ProblemError._of_slug[slug] = cls

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

    @staticmethod
    def of_response(response: httpx.Response) -> "ProblemError":
        """What a refusal tells, in problem details or not."""
        problem: dict[str, Any] = {"title": response.reason_phrase, "status": response.status_code}
        try:
            told = response.json()
            problem |= told if isinstance(told, dict) else {}
        except ValueError:
            pass
        pause_s = seconds(response.headers.get("retry-after"))
        return ProblemError.of(problem, pause_s, response.headers.get("x-request-id", ""))


class EmptyImageError(ProblemError, slug="empty-image"):
    """The image has no bytes."""


class UnsupportedImageError(ProblemError, slug="unsupported-image"):
    """The image is of no type that is read."""


class UnreadableImageError(ProblemError, slug="unreadable-image"):
    """The image is truncated or broken."""


class TooManyBytesError(ProblemError, slug="too-many-bytes"):
    """The image or the request is too large."""


class TooManyPixelsError(ProblemError, slug="too-many-pixels"):
    """The image has too many pixels."""


class TooManyMarksError(ProblemError, slug="too-many-marks"):
    """The picture shows more than a number."""


class NoExplanationsError(ProblemError, slug="no-explanations"):
    """The model that is served can't explain."""


class UnauthorizedError(ProblemError, slug="unauthorized"):
    """The API key is missing or wrong."""


class QueueFullError(ProblemError, slug="queue-full"):
    """Too many images are waiting."""


class NotReadyError(ProblemError, slug="not-ready"):
    """The service starts or stops."""


class DeadlineExceededError(ProblemError, slug="deadline-exceeded"):
    """The service had no answer in time."""


class InternalError(ProblemError, slug="internal"):
    """Something went wrong in the service; its log knows `request_id`."""


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header (RFC 9110, section 10.2.3), which is in seconds or a date."""
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
