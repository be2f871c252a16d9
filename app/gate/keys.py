"""API keys: who may use the service, and the refusal of everybody else."""

import hashlib
import hmac
import re
from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import Scope

from app.settings import Settings
from app.wire import refusals
from app.wire.problems import UNAUTHORIZED, RequestError

# What orchestrators and the page's visitors ask for before they could have a key.
_OPEN = re.compile(r"/(health(/live|/ready)?|v2/health/(live|ready)|web/.*|)")
_KEY = re.compile(r"[!-+\--~]+")  # visible ASCII but the comma, which separates keys


class KeysError(Exception):
    """The keys can't be had; the message says why."""


class Keys:
    """The keys that are good now; without any, everybody is welcome.

    Kept and compared as digests, in a time that depends on neither the key nor the guess.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key.encode()) for key in keys)

    @classmethod
    def read(cls, settings: Settings) -> "Keys":
        """Those of the settings and of the file that they name.

        Raises:
            KeysError: the file can't be read, a key is malformed, or there is none where some
                should be.
        """
        keys = [key.strip() for key in settings.api_keys.get_secret_value().split(",")]
        if settings.api_keys_file is not None:
            try:
                lines = settings.api_keys_file.read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not text"
                raise KeysError(f"cannot read {settings.api_keys_file}: {reason}") from None
            keys += [line.strip() for line in lines if not line.lstrip().startswith("#")]
        keys = [key for key in keys if key]
        if not keys and (settings.api_keys.get_secret_value() or settings.api_keys_file):
            raise KeysError("API keys are set, but there is none among them")
        if not all(map(_KEY.fullmatch, keys)):
            raise KeysError("an API key has characters other than visible ASCII without commas")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, key: bytes) -> bool:
        """Whether the key is one of them."""
        digest = _digest(key)
        # No `any`: how many are compared must not tell which one fitted.
        return sum(hmac.compare_digest(digest, good) for good in self._digests) > 0


def is_open(path: str) -> bool:
    """Whether a path answers without a key."""
    return _OPEN.fullmatch(path) is not None


def refusal(keys: Keys, scope: Scope) -> Response | None:
    """The answer to a request that needs a key and brings no good one, else None."""
    if not keys or is_open(scope["path"]):
        return None
    given = _given_key(scope["headers"])
    if given is None:
        detail, challenge = "send an API key as X-API-Key or as a bearer token", "Bearer"
    elif not keys.admit(given):
        detail, challenge = "the API key is not valid", 'Bearer error="invalid_token"'
    else:
        return None
    error = RequestError(UNAUTHORIZED, detail)
    problem = refusals.describe(error, refusals.instance_of(scope["path"]))
    return refusals.respond(problem, {"WWW-Authenticate": challenge})


def _given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key that comes as `X-API-Key` or as a bearer token."""
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    return None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
