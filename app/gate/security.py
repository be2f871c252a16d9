"""Headers that tell browsers to trust an answer no further than they must."""

import base64
import hashlib
import re
from collections.abc import Sequence

NOSNIFF = (b"x-content-type-options", b"nosniff")
_HTML = (b"content-type", b"text/html; charset=utf-8")
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def lacks_policy(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether these headers are a page's without a content security policy of its own."""
    return _HTML in headers and all(name != b"content-security-policy" for name, _ in headers)


def page_headers(page: bytes) -> list[tuple[bytes, bytes]]:
    """Headers for a page of ours whose own inline scripts may run, and no others."""
    hashes = [
        b"'sha256-" + base64.b64encode(hashlib.sha256(script).digest()) + b"'"
        for script in _INLINE_SCRIPT.findall(page)
    ]
    policy = [
        b"default-src 'none'",
        b"script-src " + b" ".join([b"'self'", *hashes]),
        b"style-src 'self' 'unsafe-inline'",
        b"img-src 'self' data:",
        b"connect-src 'self'",
        b"base-uri 'none'",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
    ]
    return [
        (b"content-security-policy", b"; ".join(policy)),
        (b"referrer-policy", b"no-referrer"),
    ]
