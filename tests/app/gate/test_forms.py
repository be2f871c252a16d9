"""The reader of multipart forms: the same files however the body arrives, and clear refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gate.forms import Form, FormLimits, plain_file
from app.wire.problems import (
    MALFORMED_FORM,
    TOO_MANY_BYTES,
    TOO_MANY_FILES,
    WRONG_FIELD,
    Kind,
    RequestError,
)

LIMITS = FormLimits(field="file", files=2, file_bytes=64, body_bytes=1000)
HEAD = b'Content-Disposition: form-data; name="file"; filename="7.png"\r\nContent-Type: image/png'


def form(*contents: bytes, head: bytes = HEAD) -> bytes:
    parts = (b"--x\r\n%b\r\n\r\n%b\r\n" % (head, content) for content in contents)
    return b"".join(parts) + b"--x--\r\n"


def read(*chunks: bytes) -> list[bytes | RequestError]:
    reader = Form("x", LIMITS)
    for chunk in chunks:
        reader.write(chunk)
    return reader.end()


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """The body in chunks, none empty."""
    ends = sorted({place % len(body) for place in places} | {len(body)} - {0})
    return [body[a:b] for a, b in zip([0, *ends], ends, strict=False) if a < b]


@given(
    st.lists(st.binary(max_size=64).filter(lambda c: b"--x" not in c), min_size=1, max_size=2),
    st.lists(st.integers(min_value=0), max_size=8),
)
def test_files_are_those_that_were_sent(contents: list[bytes], places: list[int]):
    assert read(*cut(form(*contents), places)) == contents


@given(st.lists(st.sampled_from([b"--x", b"--x--", b"\r\n", b"-", b"a", HEAD, b": "]), max_size=12))
def test_chunks_change_nothing(pieces: list[bytes]):
    def outcome(*chunks: bytes) -> object:
        try:
            return [f if isinstance(f, bytes) else (f.kind, str(f)) for f in read(*chunks)]
        except RequestError:  # the first fault that is met may be another one
            return None

    for body in (form(b"".join(pieces)), b"".join(pieces), form(b"a", head=b"".join(pieces))):
        assert outcome(*(bytes([byte]) for byte in body)) == outcome(*([body] if body else []))


def test_a_file_too_large_has_its_error_in_its_place():
    small, large = read(form(b"a" * 64, b"a" * 65))
    assert small == b"a" * 64
    assert isinstance(large, RequestError)
    assert large.kind is TOO_MANY_BYTES


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(b"a", head=HEAD.replace(b"file", b"image")), WRONG_FIELD),
        (form(b"a", head=HEAD.replace(b'"file"', '"Datei für mich"'.encode())), WRONG_FIELD),
        (form(), WRONG_FIELD),
        (form(b"a", b"b", b"c"), TOO_MANY_FILES),
        (form(b"a", head=b"Content-Type: image/png"), MALFORMED_FORM),
        (form(b"a", head=b'Content-Disposition: form-data; filename="7.png"'), MALFORMED_FORM),
        (form(b"a", head=HEAD + b"\r\nno header"), MALFORMED_FORM),
        (form(b"a")[:-5], MALFORMED_FORM),
        (form(b"a").replace(b"--x", b"--y"), MALFORMED_FORM),
        (b"what is no form", MALFORMED_FORM),
    ],
)
def test_what_does_not_belong_is_refused(body: bytes, kind: Kind):
    with pytest.raises(RequestError) as refusal:
        read(body)
    assert refusal.value.kind is kind


def test_a_name_of_any_bytes_is_no_mistake():
    """Old clients write a file's name in the bytes of their system."""
    assert read(form(b"a", head=HEAD.replace(b"7.png", "für-ß.png".encode("latin-1")))) == [b"a"]


@given(st.lists(st.sampled_from([b"--x", b"--x--", b"\r\n", b"-", b"a", HEAD, b": "]), max_size=12))
def test_the_quick_reader_takes_what_the_parser_takes_alike(pieces: list[bytes]):
    for body in (form(b"".join(pieces)), b"".join(pieces), form(b"a", head=b"".join(pieces))):
        file = plain_file(body, "x", LIMITS)
        # A first chunk of one byte is no plain form: the parser reads it.
        assert file is None or read(body[:1], body[1:]) == [file]


def test_the_quick_reader_takes_what_clients_write():
    for head in (HEAD, HEAD.lower(), HEAD.partition(b"\r\n")[0]):
        assert plain_file(form(b"content", head=head), "x", LIMITS) == b"content"
    assert plain_file(form(b"a" * 65), "x", LIMITS) is None
    assert plain_file(form(b"one", b"two"), "x", LIMITS) is None
