"""API keys: who may use the service, and the refusal of everybody else."""

import codecs
import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from starlette.responses import Response
from starlette.types import Scope

from app.settings import Settings
from app.wire import refusals
from app.wire.problems import UNAUTHORIZED, RequestError
from model.checkpoint.files import read_regular

MAX_FILE_BYTES = 2**20
MAX_GIVEN = 8  # keys of one request that are looked at: each is compared with all

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
            lines = map(str.strip, _lines(settings.api_keys_file))
            for number, line in enumerate(lines, 1):
                if line and not line.startswith("#"):
                    keys.append(line)
                    _check(line, f" in line {number} of {settings.api_keys_file}")
        keys = [key for key in keys if key]
        if not keys and (settings.api_keys.get_secret_value() or settings.api_keys_file):
            raise KeysError("API keys are set, but there is none among them")
        for key in keys:
            _check(key)
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, key: bytes) -> bool:
        """Whether the key is one of them."""
        digest = _digest(key)
        # No `any`: how many are compared must not tell which one fitted.
        return sum(hmac.compare_digest(digest, good) for good in self._digests) > 0


def _check(key: str, where: str = "") -> None:
    if not _KEY.fullmatch(key):
        raise KeysError(f"an API key{where} has other characters than visible ASCII but the comma")


def _lines(file: Path) -> list[str]:
    try:
        content = read_regular(file, MAX_FILE_BYTES)
        # Editors of Windows begin a file with a mark of its encoding.
        return content.removeprefix(codecs.BOM_UTF8).decode().splitlines()
    except OSError as error:
        reason = error.strerror
    except UnicodeDecodeError:
        reason = "it is not text in UTF-8"
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            reason = "it is text in UTF-16; save it as UTF-8"
    raise KeysError(f"cannot read {file}: {reason}")


def is_open(path: str) -> bool:
    """Whether a path answers without a key."""
    return _OPEN.fullmatch(path) is not None


def refusal(keys: Keys, scope: Scope) -> Response | None:
    """The answer to a request that needs a key and brings no good one, else None."""
    if not keys or is_open(scope["path"]):
        return None
    given = _given_keys(scope["headers"])
    if any(map(keys.admit, given)):
        return None
    if given:
        detail, challenge = "the API key is not valid", 'Bearer error="invalid_token"'
    else:
        detail, challenge = "send an API key as X-API-Key or as a bearer token", "Bearer"
    error = RequestError(UNAUTHORIZED, detail)
    problem = refusals.describe(error, refusals.instance_of(scope["path"]))
    return refusals.respond(problem, {"WWW-Authenticate": challenge})


def _given_keys(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The first few keys that come as `X-API-Key` or as bearer tokens: a proxy may add its own."""
    keys = []
    for name, value in headers:
        if name == b"x-api-key":
            keys.append(value)
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            keys.append(value[7:].strip())
    return keys[:MAX_GIVEN]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
