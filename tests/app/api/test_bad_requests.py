"""What users do wrong: each refused with its own status and problem, never with a 5xx."""

import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.settings import Settings
from tests.conftest import Server, encode
from tests.digits import load_digits
from tests.model.modalities.test_pillow import FILES, png_header, tiff_of_one_tile

SEVEN = encode(load_digits()[0][0])
NOISE = encode(np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8), "JPEG")
MAX_BYTES = Settings().max_bytes
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PNG = {"Content-Type": "image/png"}


def file(content: bytes, name: str = "digit.png") -> dict:
    return {"files": {"file": (name, content)}}


def part(name: str, content: str = "x") -> str:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{content}\r\n'


def zeros(total: int) -> Iterator[bytes]:
    """A body that is sent in chunks, without Content-Length."""
    for _ in range(total // 2**16):
        yield bytes(2**16)


BAD: dict[str, tuple[Callable[[], dict], int, str]] = {
    "empty file": (lambda: file(b""), 400, "empty-image"),
    "text named PNG": (lambda: file(b"I am no image", "a.png"), 415, "unsupported-image"),
    "SVG": (lambda: file(b"<svg/>", "a.svg"), 415, "unsupported-image"),
    "PDF": (lambda: file(b"%PDF-1.7\n"), 415, "unsupported-image"),
    "ICO": (lambda: file(b"\0\0\1\0\1\0\x10\x10"), 415, "unsupported-image"),
    "truncated PNG": (lambda: file(SEVEN[:-30]), 422, "unreadable-image"),
    "truncated JPEG": (lambda: file(NOISE[:3000]), 422, "unreadable-image"),
    "no pixels": (lambda: file(png_header(0, 0)), 422, "unreadable-image"),
    "100 megapixels": (lambda: file(png_header(10_000, 10_000)), 413, "too-many-pixels"),
    "huge tile of a small TIFF": (
        lambda: file(tiff_of_one_tile(28, 16384)),
        413,
        "too-many-pixels",
    ),
    "file too large": (lambda: file(bytes(MAX_BYTES + 1)), 413, "too-many-bytes"),
    "form too large": (lambda: file(bytes(MAX_BYTES + 2**20)), 413, "too-many-bytes"),
    "body too large": (
        lambda: {"content": bytes(MAX_BYTES + 1), "headers": PNG},
        413,
        "too-many-bytes",
    ),
    "chunked body too large": (
        lambda: {"content": zeros(MAX_BYTES + 2**20), "headers": PNG},
        413,
        "too-many-bytes",
    ),
    "other field": (lambda: {"files": {"image": SEVEN}}, 400, "wrong-field"),
    "two files": (lambda: {"files": [("file", SEVEN), ("file", SEVEN)]}, 400, "too-many-files"),
    "nothing": (dict, 400, "empty-body"),
    "empty image body": (lambda: {"content": b"", "headers": PNG}, 400, "empty-body"),
    "empty chunked body": (lambda: {"content": iter([b""]), "headers": PNG}, 400, "empty-body"),
    "JSON": (lambda: {"json": {"file": "x"}}, 415, "unsupported-content-type"),
    "URL-encoded": (lambda: {"data": {"file": "x"}}, 415, "unsupported-content-type"),
    "no content type": (lambda: {"content": SEVEN}, 415, "unsupported-content-type"),
    "no boundary": (
        lambda: {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "malformed-form",
    ),
    "boundary too long": (
        lambda: {"content": b"x", "headers": {"Content-Type": FORM["Content-Type"] + "b" * 300}},
        400,
        "malformed-form",
    ),
    "other boundary": (
        lambda: {"content": b"--c\r\n\r\n", "headers": FORM},
        400,
        "malformed-form",
    ),
    "no closing boundary": (
        lambda: {"content": part("file").encode(), "headers": FORM},
        400,
        "malformed-form",
    ),
    "part without a name": (
        lambda: {"content": b"--b\r\nA: b\r\n\r\nx\r\n--b--\r\n", "headers": FORM},
        400,
        "malformed-form",
    ),
    "endless part header": (
        lambda: {"content": b"--b\r\nA: " + bytes(10**6), "headers": FORM},
        400,
        "malformed-form",
    ),
    "form without parts": (lambda: {"content": b"--b--\r\n", "headers": FORM}, 400, "wrong-field"),
}


def assert_problem(response: httpx.Response, status: int, slug: str, instance: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance"}
    assert problem["type"] == f"/problems/{slug}"
    assert problem["status"] == status
    assert problem["instance"] == instance
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize("case", BAD)
def test_each_mistake_has_its_problem(client: httpx.Client, case: str):
    request, status, slug = BAD[case]
    response = client.post("/predict", **request())
    assert_problem(response, status, slug, "/predict")
    assert client.get(response.json()["type"]).text.startswith(str(status))


def test_the_field_wanted_is_named(client: httpx.Client):
    for path, field in (("/predict", "file"), ("/predict/batch", "files")):
        detail = client.post(path, files={"picture": SEVEN}).json()["detail"]
        assert "'picture'" in detail
        assert f"'{field}'" in detail


@pytest.mark.parametrize(
    ("request_", "status", "slug"),
    [
        ({"files": [("files", SEVEN)] * 65}, 400, "too-many-files"),
        ({"files": [("file", SEVEN)]}, 400, "wrong-field"),
        ({"content": SEVEN, "headers": PNG}, 415, "unsupported-content-type"),
        ({}, 400, "empty-body"),
    ],
)
def test_a_bad_batch_is_refused_whole(client: httpx.Client, request_: dict, status: int, slug: str):
    assert_problem(client.post("/predict/batch", **request_), status, slug, "/predict/batch")


def test_a_file_too_large_fails_alone_in_a_batch(client: httpx.Client):
    files = [("files", bytes(MAX_BYTES + 1)), ("files", SEVEN)]
    large, seven = client.post("/predict/batch", files=files).json()["predictions"]
    assert large["error"]["status"] == 413
    assert seven["digit"] == 7


def test_other_methods_and_paths(client: httpx.Client):
    response = client.get("/predict")
    assert_problem(response, 405, "method-not-allowed", "/predict")
    assert response.headers["allow"] == "POST"
    assert_problem(client.delete("/health"), 405, "method-not-allowed", "/health")
    assert_problem(client.get("/nowhere/é"), 404, "not-found", "/nowhere/%C3%A9")
    assert_problem(client.post("/predict/"), 404, "not-found", "/predict/")
    assert_problem(client.get("/problems/none"), 404, "not-found", "/problems/none")


def connect(server: Server, *lines: str) -> socket.socket:
    """A connection that has sent the head of a request to /predict."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=10)
    head = ["POST /predict HTTP/1.1", f"Host: {address.netloc}", "Content-Type: image/png", *lines]
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


def test_a_body_announced_too_large_is_refused_before_it_comes(server: Server):
    with connect(server, f"Content-Length: {10**10}") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_an_endless_body_is_refused_on_the_way(server: Server):
    with connect(server, "Transfer-Encoding: chunked") as connection:
        chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
        for _ in range(MAX_BYTES // 2**16 + 1):
            connection.sendall(chunk)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_harms_nobody(server: Server, client: httpx.Client):
    for sent in (b"", SEVEN[:100], SEVEN):
        for _ in range(5):
            with connect(server, f"Content-Length: {len(SEVEN)}") as connection:
                connection.sendall(sent)
    assert client.post("/predict", **file(SEVEN)).json()["digit"] == 7
    assert client.get("/health").status_code == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.one_of(st.binary(max_size=200), st.sampled_from(FILES)),
    edits=st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=4)), max_size=5),
)
def test_no_content_makes_a_5xx(
    client: httpx.Client, content: bytes, edits: list[tuple[int, bytes]]
):
    for at, replacement in edits:
        content = content[:at] + replacement + content[at + len(replacement) :]
    assert client.post("/predict", **file(content)).status_code in (200, 400, 413, 415, 422)
    raw = client.post("/predict", content=content, headers=FORM)
    assert raw.status_code == 400
