"""Who may come in, what pages may do, and what slow or greedy clients can't."""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.gate.keys import Keys, KeysError
from app.settings import Settings
from tests.app.api.test_bad_requests import assert_problem
from tests.app.server.test_startup import assert_one_sentence, run
from tests.conftest import Server, encode, serving, wait_until
from tests.digits import load_digits

SEVEN = encode(load_digits()[0][0])
FILE = {"file": SEVEN}
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with keys, little room and little patience."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("# two teams\nthird-key\n\n")
    with serving(
        *("--api-keys", "first-key, second-key", "--api-keys-file", str(keys)),
        *("--cors-origins", "https://a.example"),
        *("--head-timeout-s", "1", "--body-timeout-s", "2", "--max-connections", "20"),
        *("--max-upload-bytes", str(2**20)),
    ) as server:
        yield server


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=LIMIT_S)


def received(connection: socket.socket) -> bytes:
    """All until the other side closes."""
    content = b""
    try:
        while part := connection.recv(2**16):
            content += part
    except ConnectionResetError:
        pass
    return content


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nX-API-Key: first-key\r\n"


@pytest.mark.parametrize("key", ["first-key", "second-key", "third-key"])
def test_each_key_opens(guarded: Server, key: str):
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        response = httpx.post(f"{guarded.url}/predict", files=FILE, headers=headers)
        assert response.json()["digit"] == 7


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, "Bearer"),
        ({"X-API-Key": "first-ke"}, 'Bearer error="invalid_token"'),
        ({"X-API-Key": ""}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer first-key2"}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Basic first-key"}, "Bearer"),
        ({"X-API-Key": b"\xff\xfe"}, 'Bearer error="invalid_token"'),
        ({"X-API-Key": "# two teams"}, 'Bearer error="invalid_token"'),
    ],
)
def test_without_a_good_key_nothing_but_health_answers(
    guarded: Server, headers: dict, challenge: str
):
    with httpx.Client(base_url=guarded.url, headers=headers) as client:
        for path in ("/predict", "/predict/batch", "/explain", "/admin/reload", "/nowhere"):
            response = client.post(path, files=FILE)
            assert_problem(response, 401, "unauthorized", path)
            assert response.headers["www-authenticate"] == challenge
        for path in ("/metadata", "/docs", "/openapi.json", "/healthy", "/web"):
            assert client.get(path).status_code == 401
        response = client.post("/v2/models/perceiver-mnist/infer", json={})
        assert response.status_code == 401
        assert response.json().keys() == {"error"}
        for path in ("/health", "/health/live", "/health/ready", "/v2/health/live", "/"):
            assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", "Bearer proxy's"), ("X-API-Key", "first-key")], 200),
        ([("X-API-Key", "first-key"), ("Authorization", "Bearer proxy's")], 200),
        ([("X-API-Key", "bad"), ("Authorization", "bearer second-key")], 200),
        ([("X-API-Key", "bad"), ("X-API-Key", ""), ("X-API-Key", "third-key")], 200),
        ([("Authorization", "Bearer bad"), ("Authorization", "Bearer first-key")], 200),
        ([("Authorization", "Basic Zm9v"), ("X-API-Key", "first-key")], 200),
        ([("Authorization", "Bearer bad"), ("X-API-Key", "bad")], 401),
        ([("X-API-Key", f"bad{n}") for n in range(50)] + [("X-API-Key", "first-key")], 401),
    ],
)
def test_either_key_that_is_good_admits(
    guarded: Server, headers: list[tuple[str, str]], status: int
):
    """A proxy may add a key of its own; how many are looked at is bounded."""
    assert httpx.get(f"{guarded.url}/metadata", headers=headers).status_code == status


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa-key",
        b"\xef\xbb\xbf# ours\r\na-key\r\n",
        b"a-key\r\n",
        b"a-key",
        b"# ours\ra-key\r",
        b"\n\n  a-key \n",
    ],
)
def test_a_keys_file_of_any_editor_is_read(tmp_path: Path, content: bytes):
    (tmp_path / "keys").write_bytes(content)
    keys = Keys.read(Settings(api_keys_file=tmp_path / "keys"))
    assert keys.admit(b"a-key")
    assert not keys.admit(b"\xef\xbb\xbfa-key")


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda p: p.write_text("a-key", "utf-16"), "UTF-16; save it as UTF-8"),
        (lambda p: p.write_bytes(b"\xfe\xff\0a"), "UTF-16"),
        (lambda p: p.write_bytes(b"\x89PNG\xff"), "not text"),
        (lambda p: p.write_text("good\n\ntwo words\n"), "line 3 of"),
        (lambda p: p.write_bytes(b"\xef\xbb\xbf"), "none among them"),
        (os.mkfifo, "no regular file"),
        (Path.mkdir, "no regular file"),
        (lambda p: p.symlink_to("/dev/zero"), "no regular file"),
        (lambda p: (p.touch(), os.truncate(p, 2**33)), "larger"),
    ],
)
def test_a_keys_file_that_is_none_is_told_at_once(
    tmp_path: Path, make: Callable[[Path], object], hint: str
):
    make(tmp_path / "keys")
    assert_one_sentence(run("--api-keys-file", str(tmp_path / "keys")), 2, hint)


def test_the_document_tells_which_calls_need_a_key(guarded: Server):
    for _ in range(2):  # it is made when first asked for, and kept
        response = httpx.get(f"{guarded.url}/openapi.json", headers={"X-API-Key": "first-key"})
        document = response.json()
        assert document["components"]["securitySchemes"].keys() == {"key", "bearer"}
        predict, live = document["paths"]["/predict"]["post"], document["paths"]["/health/live"]
        assert predict["security"] == [{"key": []}, {"bearer": []}]
        assert "401" in predict["responses"]
        assert "security" not in live["get"]


@pytest.mark.parametrize(
    ("keys", "content"), [(",", None), ("", "# none\n"), ("", None), ("ké", None), ("a b", None)]
)
def test_keys_that_are_none_do_not_open_the_door(tmp_path: Path, keys: str, content: str | None):
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KeysError):
        Keys.read(Settings(api_keys=keys, api_keys_file=None if keys else file))


def test_bad_keys_are_told_at_the_start_and_keys_never(tmp_path: Path):
    assert_one_sentence(run("--api-keys-file", str(tmp_path / "none")), 2, "none")
    assert "hidden-key" not in repr(Settings(api_keys="hidden-key"))


def test_pages_elsewhere_may_call_where_they_are_allowed_to(guarded: Server, client: httpx.Client):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    with httpx.Client(base_url=guarded.url) as outside:
        for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
            headers = {"Origin": origin}
            preflight = outside.options("/predict", headers=headers | ask)
            assert ("access-control-allow-origin" in preflight.headers) == allowed
            response = outside.post(
                "/predict", files=FILE, headers=headers | {"X-API-Key": "first-key"}
            )
            assert ("access-control-allow-origin" in response.headers) == allowed
    response = client.post("/predict", files=FILE, headers={"Origin": "https://a.example"})
    assert "access-control-allow-origin" not in response.headers  # the default


def test_answers_tell_browsers_to_be_careful(client: httpx.Client):
    for path in ("/", "/docs"):
        headers = client.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in policy["script-src"]
        assert "//" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
    for path in ("/", "/docs", "/metadata", "/nowhere", "/openapi.json", "/web/main.js"):
        assert client.get(path).headers["x-content-type-options"] == "nosniff"
    assert client.post("/predict", files=FILE).headers["x-content-type-options"] == "nosniff"


def test_a_head_that_drips_is_ended(guarded: Server):
    with connect(guarded) as connection:
        started = time.monotonic()
        connection.sendall(HEAD)
        for _ in range(100):
            try:
                connection.sendall(b"X-A: b\r\n")
            except OSError:
                break
            if answered(connection, 0.1):
                break
        assert time.monotonic() - started < 8
        assert received(connection).startswith(b"HTTP/1.1 408 ")


def answered(connection: socket.socket, seconds: float) -> bool:
    """Whether an answer, or the connection's end, comes within so many seconds."""
    return bool(select.select([connection], [], [], seconds)[0])


@pytest.mark.parametrize("announced", [b"Content-Length: 1000\r\n\r\n", b"\r\n"])
def test_who_says_nothing_more_is_ended(guarded: Server, announced: bytes):
    with connect(guarded) as connection:
        if announced == b"\r\n":
            connection.sendall(announced)  # not even a request
        else:
            connection.sendall(HEAD + announced)
        started = time.monotonic()
        assert received(connection).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 8


def test_a_body_that_drips_is_ended(guarded: Server):
    with connect(guarded) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        started = time.monotonic()
        while not answered(connection, 0.1):
            connection.sendall(b"x")
            assert time.monotonic() - started < 8
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_what_drips_after_the_answer_is_ended_too(guarded: Server):
    """The refusal is out, the rest of the body comes for ever."""
    with connect(guarded) as connection:
        connection.sendall(HEAD.replace(b"image/png", b"text/x") + b"Content-Length: 1000\r\n\r\n")
        started = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - started < LIMIT_S:
                connection.sendall(b"x")
                time.sleep(0.1)  # the pace of a slow client
        assert time.monotonic() - started < LIMIT_S


def test_an_endless_head_is_refused(guarded: Server):
    with connect(guarded) as connection:
        connection.sendall(HEAD)
        with suppress(ConnectionError):
            for _ in range(3):
                connection.sendall(b"X-A: " + b"a" * 2**16)
        assert received(connection).startswith(b"HTTP/1.1 431 ")


def test_noise_is_refused(guarded: Server):
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\0" * 100):
        with connect(guarded) as connection:
            connection.sendall(noise)
            assert received(connection).startswith(b"HTTP/1.1 400 ")


def test_idle_connections_give_way_to_new_clients(guarded: Server):
    """A hundred that hold connections, of twenty that may be, lock nobody out."""
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(connect(guarded)).sendall(b"POST /pre")
        headers = {"X-API-Key": "first-key"}

        def is_answered() -> bool:
            response = httpx.post(f"{guarded.url}/predict", files=FILE, headers=headers)
            if response.status_code == 503:  # for a moment nobody can be called slow
                assert_problem(response, 503, "too-many-connections", "/")
            return response.status_code == 200

        for _ in range(5):
            wait_until(is_answered)


def test_uploads_share_the_room(guarded: Server):
    """Large bodies that are never finished leave room for others' small ones."""
    with ExitStack() as held:
        connections = [held.enter_context(connect(guarded)) for _ in range(6)]
        for connection in connections:
            connection.sendall(HEAD + b"Content-Length: 300000\r\n\r\n" + bytes(290_000))
        answers = [connection.recv(1000) for connection in connections]
        statuses = sorted(answer.split()[1] for answer in answers)
        assert statuses[-1] == b"503"
        assert any(b"uploads-full" in answer for answer in answers)
        assert set(statuses) <= {b"408", b"503"}
    done: list[int] = []
    flood = threading.Thread(target=lambda: done.extend(flooded(guarded)))
    flood.start()
    while flood.is_alive():
        response = httpx.post(
            f"{guarded.url}/predict", files=FILE, headers={"X-API-Key": "first-key"}
        )
        assert response.status_code == 200
    flood.join()
    assert 503 in done


def flooded(server: Server) -> list[int]:
    """Statuses of large uploads, several at once."""
    with ExitStack() as held:
        connections = [held.enter_context(connect(server)) for _ in range(8)]
        for connection in connections:
            connection.sendall(HEAD + b"Content-Length: 300000\r\n\r\n" + bytes(290_000))
        return [int(connection.recv(1000).split()[1]) for connection in connections]


def test_who_does_not_take_the_answer_is_dropped(guarded: Server):
    """Pipelined requests whose answers nobody reads end with the connection."""
    with connect(guarded) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nX-API-Key: first-key\r\n\r\n"
        connection.settimeout(0.5)
        started = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - started < LIMIT_S:
                with suppress(TimeoutError):
                    connection.sendall(request * 20)
        assert time.monotonic() - started < LIMIT_S
    assert httpx.get(f"{guarded.url}/health").status_code == 200
