"""The quick reader of plain forms takes what the parser takes, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError

from app.gate.bodies import FormLimits, _Form, plain_form
from app.wire.problems import RequestError

LIMITS = FormLimits(field="file", files=1, file_bytes=64, body_bytes=1000, stall_s=1)
HEAD = b'Content-Disposition: form-data; name="file"; filename="7.png"\r\nContent-Type: image/png'


def form(content: bytes, head: bytes = HEAD, boundary: bytes = b"x") -> bytes:
    return b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (boundary, head, content, boundary)


def parsed(body: bytes) -> list[bytes] | None:
    """What the parser makes of it, None where it or the limits refuse."""
    collected = _Form(LIMITS)
    try:
        MultipartParser(b"x", collected.callbacks()).write(body)
    except (FormParserError, RequestError):
        return None
    if not collected.ended or any(isinstance(file, RequestError) for file in collected.files):
        return None
    return [bytes(file) for file in collected.files]


def test_plain_forms_need_no_parser():
    assert plain_form(form(b"content"), b"x", "file", 64) == b"content"
    assert plain_form(form(b""), b"x", "file", 64) == b""
    assert plain_form(form(b"a" * 64), b"x", "file", 64) == b"a" * 64


@pytest.mark.parametrize(
    "body",
    [
        form(b"a" * 65),
        form(b"content", HEAD.replace(b"file", b"image")),
        form(b"content", b"Content-Type: image/png"),
        form(b"content", HEAD + b"\r\n" + HEAD),
        form(b"content", HEAD + b"\r\nno header"),
        form(b"content")[:-2],
        b"preamble\r\n" + form(b"content"),
        form(b"content", boundary=b"y"),
        form(b"one") + form(b"two"),
        b"",
    ],
)
def test_all_others_do(body: bytes):
    assert plain_form(body, b"x", "file", 64) is None


@given(st.lists(st.sampled_from([b"--x", b"--x--", b"\r\n", b"-", b"a", HEAD, b": "]), max_size=12))
def test_what_it_takes_the_parser_takes_alike(pieces: list[bytes]):
    for body in (form(b"".join(pieces)), b"".join(pieces), form(b"a", b"".join(pieces))):
        file = plain_form(body, b"x", "file", 64)
        assert file is None or parsed(body) == [file]
