"""API keys: who may use the service."""

import hashlib
import hmac
import re
from collections.abc import Iterable

from app.settings import Settings

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


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
