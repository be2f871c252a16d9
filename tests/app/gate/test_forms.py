"""The reader of multipart forms: the same files however the body arrives, and clear refusals."""

from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multipart import MultipartParser

from app.gate.forms import PART_HEAD_BYTES, Form, FormLimits
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
PIECES = [
    *(b"--x", b"--x--", b"\r\n", b"\r\n--x", b"\r\n--x\r\n", b"\r\n--x--", b"\r\n\r\n"),
    *(b"-", b"\r", b"\n", b" ", b"a", b": ", b"\0", b"\xff", HEAD, HEAD + b"\r\n\r\n"),
    *(b"A: b\r\n", b"Content-Length: 1\r\n", b"A: " + b"b" * 5000 + b"\r\n", b"c" * 60),
    HEAD.replace(b'"file"', b'"other"'),
]


def form(*contents: bytes, head: bytes = HEAD) -> bytes:
    parts = (b"--x\r\n%b\r\n\r\n%b\r\n" % (head, content) for content in contents)
    return b"".join(parts) + b"--x--\r\n"


def read(*chunks: bytes) -> list[bytes | RequestError]:
    reader = Form("x", LIMITS)
    for chunk in chunks:
        reader.write(chunk)
    return reader.end()


def outcome(*chunks: bytes) -> object:
    """The files, or the kinds and texts of what is wrong."""
    try:
        return [f if isinstance(f, bytes) else (f.kind.slug, str(f)) for f in read(*chunks)]
    except RequestError as error:
        return error.kind.slug, str(error)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """The body in chunks, none empty."""
    ends = sorted({place % len(body) for place in places} | {len(body)} - {0})
    return [body[a:b] for a, b in zip([0, *ends], ends, strict=False) if a < b]


def assert_cuts_change_nothing(body: bytes) -> None:
    whole = outcome(*([body] if body else []))
    assert outcome(*(bytes([byte]) for byte in body)) == whole
    # Of long runs of one byte a few places are enough.
    for at in [*range(1, min(len(body), 400)), *range(400, len(body), 499)]:
        assert outcome(body[:at], body[at:]) == whole
        if at > 1:
            assert outcome(body[: at - 1], body[at - 1 : at], body[at:]) == whole


@given(
    st.lists(st.binary(max_size=64).filter(lambda c: b"--x" not in c), min_size=1, max_size=2),
    st.lists(st.integers(min_value=0), max_size=8),
)
def test_files_are_those_that_were_sent(contents: list[bytes], places: list[int]):
    assert read(*cut(form(*contents), places)) == contents


@given(st.lists(st.sampled_from(PIECES), max_size=12))
@example([HEAD, b"\r\n--x", b"\r"])
@example([b"A: b\r\n"] * 9 + [HEAD, b"\r\n\r\n"])
@example([b"A: " + b"b" * 5000 + b"\r\n", HEAD, b"\r\n\r\n"])
@example([b"A: \r", b"b\r\n", HEAD, b"\r\n\r\n"])
def test_cuts_change_nothing(pieces: list[bytes]):
    content = b"".join(pieces)
    for body in (content, form(content), b"--x\r\n" + content + b"a\r\n--x--", form(head=content)):
        assert_cuts_change_nothing(body)


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n".join([b"A: b"] * 8 + [HEAD]),
        HEAD + b"\r\nA: " + b"b" * 5000,
        HEAD + b"\r\nA: " + b"b" * (4096 + 128 - 3),
        HEAD + b"\r\nA: b\rc",
        HEAD + b"\r\nA: b\nc",
        HEAD + b"\r\n folded",
        HEAD + b"\r\nA: " + b"b" * PART_HEAD_BYTES,
        HEAD.ljust(PART_HEAD_BYTES - 4, b"b"),
        HEAD.ljust(PART_HEAD_BYTES - 5, b"b"),
        HEAD.ljust(PART_HEAD_BYTES - 6, b"b"),
    ],
)
def test_cuts_change_nothing_at_the_limits_of_a_header(head: bytes):
    assert_cuts_change_nothing(form(b"a", head=head))


@pytest.mark.parametrize("start", [b"", b"\r\n", b"preamble\r\n", b"preamble", b"--x", b"\r\n--y"])
def test_cuts_change_nothing_before_the_first_boundary(start: bytes):
    assert_cuts_change_nothing(start + form(b"a"))


NAMES = st.text("abc é%\\'();=,:/.", max_size=12)


@given(NAMES, st.binary(max_size=64).filter(lambda c: b"\r\n--x" not in b"\r\n" + c))
def test_what_a_known_parser_takes_is_read_alike(name: str, content: bytes):
    quoted = name.replace("\\", "\\\\").encode()
    body = form(
        content, head=b'Content-Disposition: form-data; name="file"; filename="%b"' % quoted
    )
    (part,) = MultipartParser(BytesIO(body), "x", strict=True).parts()
    assert part.name == "file"
    assert read(body) == [part.raw] == [content]


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
        (form(b"a", head=HEAD.replace(b"form-data", b"attachment")), MALFORMED_FORM),
        (form(b"a", head=HEAD + b"\r\n" + HEAD), MALFORMED_FORM),
        (form(b"a", head=HEAD + b"\r\nno header"), MALFORMED_FORM),
        (form(b"a", head=HEAD + b"\r\nA: \0"), MALFORMED_FORM),
        (form(b"a", head=HEAD + b"\r\nA: " + b"b" * PART_HEAD_BYTES), MALFORMED_FORM),
        (b"--x\r\n\r\na\r\n--x--\r\n", MALFORMED_FORM),
        (form(b"a")[:-5], MALFORMED_FORM),
        (form(b"a").replace(b"--x--", b"--xy-"), MALFORMED_FORM),
        (form(b"a").replace(b"--x", b"--y"), MALFORMED_FORM),
        (b"what is no form", MALFORMED_FORM),
    ],
)
def test_what_does_not_belong_is_refused(body: bytes, kind: Kind):
    with pytest.raises(RequestError) as refusal:
        read(body)
    assert refusal.value.kind is kind


@pytest.mark.parametrize(
    "head",
    [
        HEAD.lower(),
        HEAD.partition(b"\r\n")[0],
        HEAD.replace(b'"file"', b"file"),
        HEAD.replace(b"; filename", b";\r\n filename"),
        b"Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n"
        + HEAD.partition(b"\r")[0],
        HEAD.replace(b"7.png", b"; name=other"),
        # Old clients write a file's name in the bytes of their system.
        HEAD.replace(b"7.png", "für-ß.png".encode("latin-1")),
    ],
)
def test_headers_may_be_written_as_clients_write_them(head: bytes):
    assert read(form(b"a", head=head)) == [b"a"]
