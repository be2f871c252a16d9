"""A short cut past the routes answers as the route does, for everybody."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.app.api.test_bad_requests import BAD, PNG, assert_problem
from tests.conftest import Server, encode, serving
from tests.digits import load_digits

SEVEN = encode(load_digits()[0][0])
FILE = {"file": ("7.png", SEVEN)}
ORIGIN = "https://a.example"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FLAGS = {
    "plain": (),
    "CORS": ("--cors-origins", ORIGIN),
    "keys": ("--api-keys", "a-key"),
    "OTLP": ("--otlp-endpoint", "http://127.0.0.1:9"),
}
# With a fault built in: one content makes an error that nobody expects.
PROGRAM = """
import sys
import app.serve_command as main
import app.application
from app.inference.predictor import Predictor

predict = Predictor.predict

async def faulty(self, image, deadline):
    if image == b"boom":
        raise ValueError("nobody expects this")
    return await predict(self, image, deadline)

Predictor.predict = faulty
app.application.{change}
sys.exit(main.main())
"""
NO_SHORT_CUTS = PROGRAM.format(change="SHORT_CUTS.clear()")
NO_ROUTES = PROGRAM.format(change="predict.router.routes.clear()")


@pytest.fixture(scope="module", params=FLAGS)
def clients(request: pytest.FixtureRequest) -> Iterator[list[httpx.Client]]:
    """Of a server that has no short cuts, and of one that has only them to /predict."""
    flags = FLAGS[request.param]
    with (
        serving(*flags, program=("-c", NO_SHORT_CUTS)) as routed,
        serving(*flags, program=("-c", NO_ROUTES)) as short,
        client_of(routed) as first,
        client_of(short) as second,
    ):
        yield [first, second]


def client_of(server: Server) -> httpx.Client:
    headers = {"X-API-Key": "a-key", "Origin": ORIGIN}
    return httpx.Client(base_url=server.url, headers=headers, timeout=30)


def answer(client: httpx.Client, path: str, request: dict) -> dict:
    """Status, headers and body, without what is another each time."""
    headers = {"X-Request-ID": "mine", **request.get("headers", {})}
    response = client.post(path, **{**request, "headers": headers})
    fields = [
        (name, re.sub(r"(?<=dur=)[\d.]+|(?<=-)[0-9a-f]{16}(?=-)|\d\d:\d\d:\d\d", "", value))
        for name, value in response.headers.multi_items()
    ]
    if "traceparent" not in headers:  # where spans are recorded, an answer tells of a trace
        fields = [(name, "" if name == "traceresponse" else value) for name, value in fields]
    return {
        "status": response.status_code,
        "headers": sorted(fields),
        "body": response.content,
    }


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/predict", {"files": FILE}),
        ("/predict", {"content": SEVEN, "headers": PNG}),
        ("/predict?a=b", {"files": FILE}),
        ("/predict", {"files": FILE, "headers": {"traceparent": TRACE}}),
        ("/predict/batch", {"files": [("files", SEVEN), ("files", b"none")]}),
    ],
)
def test_good_requests(clients: list[httpx.Client], path: str, request_: dict):
    routed, short = (answer(client, path, request_) for client in clients)
    assert routed == short
    assert short["status"] == 200
    names = [name for name, _ in short["headers"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", BAD)
def test_bad_requests(clients: list[httpx.Client], case: str):
    make, status, _ = BAD[case]
    routed, short = (answer(client, "/predict", make()) for client in clients)
    assert routed == short
    assert short["status"] == status


def test_what_nobody_expects(clients: list[httpx.Client]):
    request = {"content": b"boom", "headers": PNG}
    routed, short = (answer(client, "/predict", request) for client in clients)
    assert routed == short
    for client in clients:
        assert_problem(client.post("/predict", **request), 500, "internal", "/predict")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("X-Request-ID", ["", "first", "second"]),
        ("traceparent", [TRACE, TRACE.replace("-01", "-00")]),
        ("Content-Type", ["image/png", "text/plain"]),
        ("X-API-Key", ["a-key", "another"]),
    ],
)
def test_of_headers_that_come_twice_the_first_good_one_counts(
    clients: list[httpx.Client], name: str, values: list[str]
):
    for client in clients:
        request = client.build_request("POST", "/predict", content=SEVEN, headers=PNG)
        others = [(k, v) for k, v in request.headers.multi_items() if k != name.lower()]
        request.headers = httpx.Headers([*others, *((name, value) for value in values)])
        response = client.send(request)
        assert response.status_code == 200, response.text
        assert response.json()["digit"] == 7
        if name == "X-Request-ID":
            assert response.headers.get_list("x-request-id") == ["first"]
        if name == "traceparent":  # two places in a trace are none
            assert TRACE[3:35] not in response.headers.get("traceresponse", "")
