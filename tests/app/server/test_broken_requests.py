"""Broken requests by number; `bench.fuzz` goes on with these."""

import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import Server, encode
from tests.digits import load_digits
from tests.mutations import inference, requests

LIMIT_S = 60.0
QUIET_S = 0.1
INFER = b"POST /v2/models/perceiver-mnist/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
SEVEN = {"file": encode(load_digits()[0][0])}


def answer(server: Server, pieces: list[bytes], patience_s: float = LIMIT_S) -> bytes:
    """All that the server sends until the connection ends.

    The client says that it has sent all once it has heard nothing for so long.
    """
    address = urlsplit(server.url)
    received = bytearray()
    with socket.create_connection((address.hostname, address.port), LIMIT_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):
            for piece in pieces:
                client.sendall(piece)
            client.settimeout(patience_s)
            with suppress(TimeoutError):
                while part := client.recv(2**16):
                    received += part
                return bytes(received)
            client.settimeout(LIMIT_S)
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(2**16):
                received += part
    return bytes(received)


def statuses(content: bytes) -> set[int]:
    return {int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", content)}


@pytest.mark.parametrize("start", range(0, 300, 100))
def test_whatever_is_broken_in_http_is_answered_or_cut_off(
    server: Server, client: httpx.Client, start: int
):
    for number in range(start, start + 100):
        stream = requests.mutant(number)
        for pieces in ([stream.content], stream.pieces):
            assert not statuses(answer(server, pieces, QUIET_S)) & {500, 501, 502}, number
    assert client.post("/predict", files=SEVEN).json()["digit"] == 7


@pytest.mark.parametrize("start", range(0, 300, 100))
def test_whatever_is_broken_in_an_inference_body_is_answered(
    server: Server, client: httpx.Client, start: int
):
    for number in range(start, start + 100):
        body = inference.mutant(number)
        headers = [(b"Content-Length", b"%d" % len(body.content)), *body.headers]
        head = INFER + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n"
        told = statuses(answer(server, [head + body.content]))
        assert told, number
        assert not told & {500, 501, 502}, number
    assert client.post("/predict", files=SEVEN).json()["digit"] == 7
