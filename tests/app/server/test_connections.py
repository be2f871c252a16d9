"""HTTP as it comes over a socket: good, bad, cut anywhere, slow, and without end."""

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.server.request_head import MAX_HEAD_BYTES
from tests.app.server.test_faults import memory_and_files
from tests.conftest import START_LIMIT_S, Server, encode, serving, wait_until
from tests.digits import load_digits

SEVEN = encode(load_digits()[0][0])
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
SIZED = b"Content-Length: %d\r\n" % len(SEVEN)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
LAST = GET + b"Connection: close\r\n\r\n"  # after any request that leaves the connection open
PREDICT = POST + SIZED + b"\r\n" + SEVEN
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="7.png"\r\n'
    b"Content-Type: image/png\r\n\r\n" + SEVEN + b"\r\n--b--\r\n"
)
INFER = b'{"inputs": [{"name": "image", "shape": [1, 1], "datatype": "UINT8", "data": [0]}]}'


def chunks(body: bytes, size: int = 50, extension: bytes = b"") -> bytes:
    """A body in chunks, without the last."""
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)


def form(part_head: bytes = b"") -> bytes:
    body = FORM.replace(b"\r\n\r\n", b"\r\n" + part_head + b"\r\n", 1)
    head = POST.replace(b"image/png", b"multipart/form-data; boundary=b")
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def upgrade(protocol: bytes) -> bytes:
    return (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nHTTP2-Settings: AAMA\r\n" % protocol
    )


def bad(line: bytes) -> tuple[bytes, list[int]]:
    """A request with one header line that makes it malformed."""
    return GET + line + b"\r\n\r\n", [400]


END = b"0\r\n\r\n"
# What is sent, and the statuses of the answers until the server closes.
REQUESTS: dict[str, tuple[bytes, list[int]]] = {
    "a body": (PREDICT + LAST, [200, 200]),
    "a body in chunks": (POST + CHUNKED + b"\r\n" + chunks(SEVEN) + END + LAST, [200, 200]),
    "chunked in capitals": (
        POST + b"TRANSFER-ENCODING: \tChunked \r\n\r\n" + chunks(SEVEN, 1) + END + LAST,
        [200, 200],
    ),
    "extensions": (
        POST + CHUNKED + b"\r\n" + chunks(SEVEN, 99, b' ; a="b"') + b"000;x\r\n\r\n" + LAST,
        [200, 200],
    ),
    "a form": (form() + LAST, [200, 200]),
    "nine part headers": (form(b"A: b\r\n" * 9) + LAST, [200, 200]),
    "a part header of 5 KB": (form(b"A: " + b"b" * 5000 + b"\r\n") + LAST, [200, 200]),
    "a bare CR in a part header": (form(b"A: b\rc\r\n") + LAST, [400, 200]),
    "h2c": (POST + SIZED + upgrade(b"h2c") + b"\r\n" + SEVEN + LAST, [200, 200]),
    "h2c, chunked": (
        POST + CHUNKED + upgrade(b"h2c") + b"\r\n" + chunks(SEVEN) + END + LAST,
        [200, 200],
    ),
    "websocket": (POST + SIZED + upgrade(b"websocket") + b"\r\n" + SEVEN + LAST, [200, 200]),
    "any other protocol": (GET + upgrade(b"x") + b"\r\n" + LAST, [200, 200]),
    "a request as a body": (
        POST + b"Content-Length: %d\r\n" % len(LAST) + upgrade(b"h2c") + b"\r\n" + LAST + LAST,
        [415, 200],
    ),
    "an early refusal": (PREDICT.replace(b"image/png", b"text/csv") + LAST, [415, 200]),
    "a body where none is read": (GET + SIZED + b"\r\n" + SEVEN + LAST, [200, 200]),
    "trailers": (
        POST + CHUNKED + b"\r\n" + chunks(SEVEN) + b"0\r\nContent-Type: text/csv\r\n\r\n" + LAST,
        [200, 200],
    ),
    "pipelined": (GET + b"\r\n" + PREDICT + form() + GET + b"\r\n" + LAST, [200] * 5),
    "many pipelined": (PREDICT * 12 + LAST, [200] * 13),
    "bad behind good": (PREDICT + GET + b"Host: y\r\n\r\n" + LAST, [200, 400]),
    "noise behind good": (GET + b"\r\n" + b"\0\1\2", [200, 400]),
    "HTTP/1.0": (b"GET /health/live HTTP/1.0\r\n\r\n", [200]),
    "empty lines first": (b"\r\n\r\n" + GET + b"\r\n\r\n" + LAST, [200, 200]),
    "no end of empty lines": (b"\r\n" * 9, [400]),
    "HEAD": (b"HEAD /metadata HTTP/1.1\r\nHost: x\r\n\r\n" + LAST, [200, 200]),
    "absolute form": (GET.replace(b"/h", b"http://x/h") + b"\r\n" + LAST, [200, 200]),
    "v2": (
        b"POST /v2/models/perceiver-mnist/infer HTTP/1.1\r\nHost: x\r\n"
        b"Content-Length: %d\r\n\r\n" % len(INFER) + INFER + LAST,
        [400, 200],
    ),
    "Expect": (POST + SIZED + b"Expect: 100-continue\r\n\r\n" + SEVEN + LAST, [100, 200, 200]),
    "a head too large": (GET + b"X: " + b"a" * 100_000 + b"\r\n\r\n", [431]),
    "a head of spaces": (GET + b"X:" + b" " * 100_000 + b"\r\n\r\n", [431]),
    "the largest head": (
        GET + b"X: " + b"a" * (MAX_HEAD_BYTES - len(GET) - 7) + b"\r\n\r\n" + LAST,
        [200, 200],
    ),
    "a byte more": (GET + b"X: " + b"a" * (MAX_HEAD_BYTES - len(GET) - 6) + b"\r\n\r\n", [431]),
    "many headers": (GET + b"A: b\r\n" * 20_000 + b"\r\n", [431]),
    "no Host": (b"GET /health HTTP/1.1\r\n\r\n", [400]),
    "two Hosts": bad(b"Host: x"),
    "no host's name": (b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n", [400]),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n" + LAST, [400]),
    "HTTP/2.0": (GET.replace(b"1.1", b"2.0") + b"\r\n", [505]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505]),
    "HTTP/1.2": (GET.replace(b"1.1", b"1.2") + b"\r\n", [505]),
    "HTTP/3.0": (GET.replace(b"1.1", b"3.0") + b"\r\n", [505]),
    "HTTP/1.10": (GET.replace(b"1.1", b"1.10") + b"\r\n", [400]),
    "HTTP/0.9": (b"GET /health\r\n\r\n", [400]),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]),
    "two lengths": (POST + SIZED * 2 + b"\r\n" + SEVEN, [400]),
    "a list of lengths": bad(b"Content-Length: 5, 5"),
    "a negative length": bad(b"Content-Length: -1"),
    "a length with a sign": bad(b"Content-Length: +1"),
    "a length in hexadecimal": bad(b"Content-Length: 0x1"),
    "an endless length": bad(b"Content-Length: 1" + b"0" * 400),
    "no length": bad(b"Content-Length:"),
    "length and chunks": (POST + SIZED + CHUNKED + b"\r\n" + chunks(SEVEN) + END, [400]),
    "two codings": (POST + CHUNKED * 2 + b"\r\n" + chunks(SEVEN) + END, [400]),
    "another coding": bad(b"Transfer-Encoding: gzip, chunked"),
    "a coding that is none": bad(b"Transfer-Encoding: xchunked"),
    "chunks of HTTP/1.0": (
        POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + chunks(SEVEN) + END,
        [400],
    ),
    "a folded header": bad(b"X: a\r\n b"),
    "a bare LF": bad(b"X: a\nY: b"),
    "bare LFs": (b"GET /health HTTP/1.1\nHost: x\n\n", [400]),
    "a bare CR": bad(b"X: a\rb"),
    "NUL": bad(b"X: a\0b"),
    "a space before the colon": bad(b"X : a"),
    "a header without a name": bad(b": a"),
    "a header without a colon": bad(b"X"),
    "a chunk without a size": (POST + CHUNKED + b"\r\n\r\nx\r\n" + END, [400]),
    "a chunk's negative size": (POST + CHUNKED + b"\r\n-1\r\nx\r\n" + END, [400]),
    "a chunk's size in 0x": (POST + CHUNKED + b"\r\n0x1\r\nx\r\n" + END, [400]),
    "a chunk's endless size": (POST + CHUNKED + b"\r\n" + b"f" * 17 + b"\r\nx\r\n" + END, [400]),
    "a chunk after a bare LF": (POST + CHUNKED + b"\r\n1\nx\r\n" + END, [400]),
    "a bare LF in an extension": (POST + CHUNKED + b"\r\n1;a\nx\r\n" + END, [400]),
    "a chunk too long": (POST + CHUNKED + b"\r\n1\r\nxy\r\n" + END, [400]),
    "a trailer that is none": (POST + CHUNKED + b"\r\n1\r\nx\r\n0\r\nX Y\r\n\r\n", [400]),
    "a bad chunk of a bad type": (
        POST.replace(b"image/png", b"text/csv") + CHUNKED + b"\r\nz\r\n",
        [415],
    ),
    "a bad chunk that nobody reads": (GET + CHUNKED + b"\r\nz\r\n" + LAST, [200]),
}


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=START_LIMIT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def received(connection: socket.socket) -> bytes:
    """All until the other side closes."""
    content = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(2**16):
            content += part
    return content


def answers(server: Server, *segments: bytes) -> tuple[list[int], bytes]:
    """The statuses of the answers to what is sent, and all of them without what differs always."""
    with connect(server) as connection:
        with suppress(ConnectionError):
            for segment in segments:
                connection.sendall(segment)
                if len(segments) == 2:
                    time.sleep(0.002)  # nobody tells when the server has read the first of two
        content = received(connection)
    content = re.sub(
        rb"(x-request-id|server-timing|date|connection|content-length): .*\r\n",
        b"",
        content,
        flags=re.I,
    )
    statuses = [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", content)]
    return statuses, re.sub(rb"\d+\.\d+(e-\d+)?", b"", content)


@pytest.mark.parametrize("name", REQUESTS)
def test_each_request_has_its_answer_however_it_is_cut(server: Server, name: str):
    request, statuses = REQUESTS[name]
    whole = answers(server, request)
    assert whole[0] == statuses
    size = len(request)
    places = {1, 2, 10, size // 3, size // 2, size - 2, size - 1}
    places |= {
        found.end() - back for found in re.finditer(rb"\r\n\r\n", request) for back in range(5)
    }
    places = {place for place in sorted(places)[:60] if 0 < place < size}
    ways = [(request[:place], request[place:]) for place in places]
    if size < 2000:
        ways.append(tuple(bytes([byte]) for byte in request))
    with ThreadPoolExecutor(8) as pool:
        for segments, answer in zip(
            ways, pool.map(lambda way: answers(server, *way), ways), strict=True
        ):
            if whole[0] == [431]:  # a reset may overtake the answer to what is still being sent
                assert answer[0] in ([], [431])
            else:
                assert answer == whole, segments[0]


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_may_offer_http2(server: Server, tmp_path: Path):
    (tmp_path / "7.png").write_bytes(SEVEN)
    command = ["curl", "-sS", "--http2", "-F", f"file=@{tmp_path}/7.png", f"{server.url}/predict"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if "HTTP/2" in asked.stderr:
        pytest.skip("this curl knows no HTTP/2")
    assert '"digit":7' in asked.stdout


def test_trailers_are_not_obeyed():
    with serving("--api-keys", "a-key") as server:
        trailer = b"X-API-Key: a-key\r\nX-Request-ID: mine\r\n\r\n"
        request = POST + b"{KEY}" + CHUNKED + b"\r\n" + chunks(SEVEN) + b"0\r\n" + trailer + LAST
        assert answers(server, request.replace(b"{KEY}", b""))[0] == [401, 200]
        with connect(server) as connection:
            connection.sendall(request.replace(b"{KEY}", b"X-API-Key: a-key\r\n"))
            answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"mine" not in answer


@pytest.mark.parametrize(
    "endless",
    [
        b"0\r\n" + b"X: a\r\n" * 20_000,
        b"0\r\nX: " + b"a" * 100_000,
        b"1;" + b"a" * 100_000,
        b"1\r\nx\r\n" * 20_000,
        b"1\r\nx\r\n0" + b"0" * 100_000,
    ],
    ids=["trailers", "a trailer", "an extension", "tiny chunks", "digits"],
)
def test_what_goes_around_a_body_has_an_end(server: Server, endless: bytes):
    with connect(server) as connection:
        sent = 0
        with suppress(ConnectionError):
            connection.sendall(POST + CHUNKED + b"\r\n")
            for _ in range(100):
                connection.sendall(endless)
                sent += len(endless)
        assert sent < 8 * 2**20
        assert received(connection)[:13] in (b"", b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")


def test_head_is_as_get_without_a_body(client: httpx.Client):
    paths = [
        path
        for path, calls in client.get("/openapi.json").json()["paths"].items()
        if "get" in calls
    ]
    assert "/v2/models/{name}" in paths
    names = {"{name}": "perceiver-mnist", "{slug}": "queue-full"}
    names["{version}"] = client.get("/v2/models/perceiver-mnist").json()["versions"][0]
    for path in [*paths, "/", "/docs", "/openapi.json"]:
        for name, value in names.items():
            path = path.replace(name, value)
        get, head = client.get(path), client.head(path)
        assert head.status_code == get.status_code == 200, path
        assert head.content == b""
        assert head.headers.keys() == get.headers.keys()
        assert head.headers["content-type"] == get.headers["content-type"]
    assert client.head("/predict").status_code == 405


@pytest.mark.parametrize("request_", [GET + b"\r\n", PREDICT, (GET + b"\r\n") * 3 + PREDICT])
def test_who_ends_its_side_is_answered(server: Server, request_: bytes):
    with connect(server) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = received(connection)
    assert answer.count(b"HTTP/1.1 200 ") == request_.count(b" HTTP/1.1\r\n")


def test_who_ends_its_side_too_early_is_not_waited_for(server: Server):
    for request in (GET, POST + SIZED + b"\r\n" + SEVEN[:9], b""):
        with connect(server) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(2)
            assert received(connection) == b""


# With an engine that takes its time for an image that is white all over.
PROGRAM = """
import sys, time
from app.inference.engines.onnxruntime_engine import OnnxRuntimeEngine

compute = OnnxRuntimeEngine.compute

def slow_for_white(self, images, *rest):
    if (images == 255).all(axis=(1, 2, 3)).any():
        time.sleep(3)
    return compute(self, images, *rest)

OnnxRuntimeEngine.compute = slow_for_white
import app.serve_command as main
sys.exit(main.main())
"""
PLACES = 20
INFER_WHITE = (
    b'{"inputs": [{"name": "image", "shape": [1, 28, 28], "datatype": "UINT8", "data": [%b]}]}'
    % b",".join([b"255"] * 784)
)
WHITE = (
    b"POST /v2/models/perceiver-mnist/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    % len(INFER_WHITE)
    + INFER_WHITE
)


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A server with few places, whose engine is slow for white images."""
    with serving("--max-connections", str(PLACES), program=("-c", PROGRAM)) as server:
        yield server


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST /pre",
        POST,
        POST + b"Content-Length: 1000\r\n\r\n",
        POST + CHUNKED + b"\r\n3e8\r\n",
        POST.replace(b"image/png", b"text/csv") + b"Content-Length: 1000\r\n\r\n",
        GET + b"\r\n",
        GET + b"Content-Length: 1000\r\n\r\n",
    ],
    ids=["silent", "line", "head", "body", "chunk", "refused", "idle", "unread body"],
)
def test_the_slowest_gives_way_and_who_waits_for_us_never(small: Server, start: bytes):
    with ExitStack() as held:
        waiting = [held.enter_context(connect(small)) for _ in range(3)]
        for connection in waiting:
            connection.sendall(WHITE)
        for _ in range(3 * PLACES):
            held.enter_context(connect(small)).sendall(start)
        for _ in range(5):
            started = time.monotonic()
            while httpx.get(f"{small.url}/health/live").status_code != 200:
                pass  # the others have only just begun
            assert time.monotonic() - started < 2
        for connection in waiting:
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")


def test_where_all_wait_for_us_who_comes_is_told_at_once(small: Server):
    with ExitStack() as held:
        waiting = [held.enter_context(connect(small)) for _ in range(PLACES)]
        for connection in waiting:
            connection.sendall(WHITE)
        answer = httpx.get(f"{small.url}/health/live")
        while answer.status_code == 200:  # not all of them have been read yet
            answer = httpx.get(f"{small.url}/health/live")
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/too-many-connections"
        for connection in waiting:
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")


def test_a_fast_body_stays_where_slow_ones_give_way(small: Server):
    with ExitStack() as held:
        fast = held.enter_context(connect(small))
        fast.sendall(POST + b"Content-Length: 500000\r\n\r\n" + bytes(400_000))
        for _ in range(3 * PLACES):
            held.enter_context(connect(small)).sendall(POST + b"Content-Length: 9\r\n\r\n")
        fast.sendall(bytes(100_000))
        assert fast.recv(2**16).startswith(b"HTTP/1.1 415 ")


def test_a_body_below_the_least_rate_is_ended(small: Server):
    """Long before the time for a body has passed, though no pause is too long."""
    wait_until(lambda: httpx.get(f"{small.url}/health/live").status_code == 200)  # there is room
    with connect(small) as connection:
        started = time.monotonic()
        connection.sendall(POST + b"Content-Length: 1000\r\n\r\n")
        connection.settimeout(1)
        answer = b""
        while not answer and time.monotonic() - started < START_LIMIT_S:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 20


def test_what_is_pipelined_takes_bounded_memory(server: Server):
    """Each of forty connections sends for seconds, and takes no answer."""
    before, _ = memory_and_files(server.process.pid)
    stop = threading.Event()

    def flood() -> None:
        with connect(server) as connection:
            connection.settimeout(0.2)
            while not stop.is_set():
                try:
                    connection.sendall(PREDICT * 50)
                except TimeoutError:
                    pass
                except OSError:
                    return

    floods = [threading.Thread(target=flood) for _ in range(40)]
    for thread in floods:
        thread.start()
    with httpx.Client(base_url=server.url, timeout=START_LIMIT_S) as client:
        for _ in range(50):
            assert client.get("/health/live").status_code == 200
    during, _ = memory_and_files(server.process.pid)
    stop.set()
    for thread in floods:
        thread.join()
    assert during < before + 100
    wait_until(lambda: httpx.get(f"{server.url}/health").status_code == 200)


@pytest.mark.parametrize(("hard", "places"), [(5000, 1024), (300, 172)])
def test_the_system_has_files_for_all_connections(hard: int, places: int):
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, {hard}))\n"
        "from app.server.connections import affordable; print(affordable(1024))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(printed.stdout) == places
