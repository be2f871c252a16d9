"""Forms: the quick reader of plain ones takes what the parser takes, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gate.forms import Form, FormLimits, plain_file
from app.wire.problems import RequestError

LIMITS = FormLimits(field="file", files=1, file_bytes=64, body_bytes=1000)
HEAD = b'Content-Disposition: form-data; name="file"; filename="7.png"\r\nContent-Type: image/png'


def form(content: bytes, head: bytes = HEAD, boundary: bytes = b"x") -> bytes:
    return b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (boundary, head, content, boundary)


def parsed(body: bytes, size: int = 1) -> list[bytes] | None:
    """What the parser makes of a body in chunks, None where it or the limits refuse.

    A first chunk of one byte is no plain form.
    """
    read = Form("x", LIMITS)
    try:
        for start in range(0, len(body), size):
            read.write(body[start : start + size])
        files = read.end()
    except RequestError:
        return None
    return None if any(isinstance(file, RequestError) for file in files) else files


def test_plain_forms_need_no_parser():
    assert plain_file(form(b"content"), "x", LIMITS) == b"content"
    assert plain_file(form(b"content", HEAD.lower()), "x", LIMITS) == b"content"
    assert plain_file(form(b"content", HEAD.partition(b"\r\n")[0]), "x", LIMITS) == b"content"
    assert plain_file(form(b""), "x", LIMITS) == b""
    assert plain_file(form(b"a" * 64), "x", LIMITS) == b"a" * 64


@pytest.mark.parametrize(
    "body",
    [
        form(b"a" * 65),
        form(b"content", HEAD.replace(b"file", b"image")),
        form(b"content", b"Content-Type: image/png"),
        form(b"content", HEAD + b"\r\n" + HEAD),
        form(b"content", HEAD + b"\r\nno header"),
        form(b"content", HEAD + b"\r\nContent-Length: 1"),
        form(b"content")[:-2],
        b"preamble\r\n" + form(b"content"),
        form(b"content", boundary=b"y"),
        form(b"one") + form(b"two"),
        b"",
    ],
)
def test_all_others_do(body: bytes):
    assert plain_file(body, "x", LIMITS) is None


@given(
    st.lists(st.sampled_from([b"--x", b"--x--", b"\r\n", b"-", b"a", HEAD, b": "]), max_size=12),
    st.integers(1, 30),
)
def test_what_it_takes_the_parser_takes_alike(pieces: list[bytes], size: int):
    for body in (form(b"".join(pieces)), b"".join(pieces), form(b"a", b"".join(pieces))):
        file = plain_file(body, "x", LIMITS)
        assert file is None or parsed(body) == [file]
        assert parsed(body, size) == parsed(body)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_file_too_large_has_its_error_in_its_place(size: int):
    limits = FormLimits(field="file", files=3, file_bytes=4, body_bytes=1000)
    parts = [b"four", b"five5", b""]
    body = b"".join(b"--x\r\n%b\r\n\r\n%b\r\n" % (HEAD, part) for part in parts) + b"--x--\r\n"
    read = Form("x", limits)
    for start in range(0, len(body), size):
        read.write(body[start : start + size])
    first, second, third = read.end()
    assert (first, third) == (b"four", b"")
    assert isinstance(second, RequestError)
    assert second.kind.slug == "too-many-bytes"


def test_a_name_of_any_bytes_is_no_mistake():
    """Old clients write a file's name in the bytes of their system."""
    head = HEAD.replace(b"7.png", "sieben-für-ß.png".encode("latin-1"))
    assert parsed(form(b"content", head), 1000) == parsed(form(b"content", head)) == [b"content"]
