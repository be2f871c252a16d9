"""What the service tells of itself, and how it answers when the engine is slow, stuck or broken.

The latter needs an engine that can be held up: the application runs in this process with one.
"""

import asyncio
import re
import threading
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from app.application import Application, create_app
from app.inference.engines import EngineName, Outputs
from app.inference.predictor import STUCK_AFTER_S, Predictor
from app.settings import Settings
from model.checkpoint.folder import Checkpoint
from tests.app.api.test_bad_requests import BAD, assert_problem
from tests.conftest import encode
from tests.digits import load_digits

SEVEN = encode(load_digits()[0][0])
ONE = encode(load_digits()[0][2])
LIMIT_S = 10.0


class MoodyEngine:
    """Computes the share of light pixels as every logit; can be held up, and fails on request."""

    name: EngineName = "onnxruntime"
    device = "cpu"
    concurrency = 1
    tolerance = 0.0

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.fails_above = 1.0  # share of light pixels

    def compute(self, images: np.ndarray) -> Outputs:
        self.batches.append(len(images))
        self.entered.set()
        assert self.open.wait(LIMIT_S)
        shares = (images > 0).mean(axis=(1, 2, 3))
        if shares.max() > self.fails_above:
            raise RuntimeError("secret inside")
        shares = shares.astype(np.float32)
        return Outputs(np.repeat(shares[:, None], 10, axis=1), novelty=shares)


@pytest.fixture
def engine() -> MoodyEngine:
    return MoodyEngine()


@pytest.fixture
async def app(engine: MoodyEngine, checkpoint: Checkpoint) -> AsyncIterator[Application]:
    settings = Settings(max_queue=2, max_files=2, request_timeout_s=0.5)
    app = create_app(settings, lambda settings: Predictor(checkpoint.card, engine, settings))
    await app.start()
    yield app
    engine.open.set()
    await app.stop()


@pytest.fixture
async def inside(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://inside") as client:
        yield client


async def hold_up(engine: MoodyEngine, inside: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    """Makes the engine busy with a first request."""
    engine.entered.clear()
    engine.open.clear()
    task = asyncio.create_task(inside.post("/predict", files={"file": SEVEN}))
    await asyncio.to_thread(engine.entered.wait, LIMIT_S)
    return task


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_healthy(client: httpx.Client, path: str):
    response = client.get(path)
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


@pytest.mark.anyio
async def test_before_the_start_it_lives_but_is_not_ready():
    transport = httpx.ASGITransport(create_app(Settings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://inside") as client:
        assert (await client.get("/health/live")).status_code == 200
        for path in ("/health", "/health/ready", "/metadata"):
            response = await client.get(path)
            assert_problem(response, 503, "not-ready", path)
            assert response.headers["retry-after"].isdigit()
        response = await client.post("/predict", files={"file": SEVEN})
        assert_problem(response, 503, "not-ready", "/predict")


@pytest.mark.anyio
async def test_after_the_stop_it_refuses(app: Application, inside: httpx.AsyncClient):
    await app.stop()
    assert_problem(await inside.get("/health/ready"), 503, "not-ready", "/health/ready")
    response = await inside.post("/predict", files={"file": SEVEN})
    assert_problem(response, 503, "not-ready", "/predict")
    assert response.headers["retry-after"].isdigit()


@pytest.mark.anyio
async def test_a_full_queue_refuses_and_a_deadline_ends_the_wait(
    engine: MoodyEngine, inside: httpx.AsyncClient
):
    first = await hold_up(engine, inside)
    others = [inside.post("/predict", files={"file": ONE}) for _ in range(4)]
    refused = []
    for response in await asyncio.gather(first, *others):
        if response.status_code == 503:
            refused.append(response)
        else:
            assert_problem(response, 504, "deadline-exceeded", "/predict")
    assert len(refused) == 2  # two places, besides the one that is being computed
    for response in refused:
        assert_problem(response, 503, "queue-full", "/predict")
        assert response.headers["retry-after"].isdigit()
    engine.open.set()
    assert (await inside.post("/predict", files={"file": SEVEN})).status_code == 200
    assert engine.batches == [1, 1]


@pytest.mark.anyio
async def test_who_hangs_up_is_not_computed(
    app: Application, engine: MoodyEngine, inside: httpx.AsyncClient
):
    first = await hold_up(engine, inside)
    messages = asyncio.Queue[dict]()
    messages.put_nowait({"type": "http.request", "body": SEVEN})
    headers = [(b"content-type", b"image/png"), (b"content-length", b"%d" % len(SEVEN))]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": headers,
    }
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    second = asyncio.create_task(app(scope, messages.get, send))
    messages.put_nowait({"type": "http.disconnect"})
    await second
    assert sent[0]["status"] == 400
    engine.open.set()
    assert (await first).status_code == 200
    assert engine.batches == [1]


@pytest.mark.anyio
async def test_a_failing_image_fails_alone_and_tells_nothing(
    engine: MoodyEngine, inside: httpx.AsyncClient
):
    engine.fails_above = 0.1  # between the one and the seven
    response = await inside.post("/predict", files={"file": SEVEN})
    assert_problem(response, 500, "internal", "/predict")
    assert "secret" not in response.text
    response = await inside.post("/predict/batch", files=[("files", ONE), ("files", SEVEN)])
    one, seven = response.json()["predictions"]
    assert one["confidence"] == pytest.approx(0.1)
    assert seven["error"]["status"] == 500


@pytest.mark.anyio
async def test_a_broken_engine_is_not_ready_until_it_computes_again(
    engine: MoodyEngine, inside: httpx.AsyncClient
):
    engine.fails_above = -1.0
    await inside.post("/predict", files={"file": SEVEN})
    assert_problem(await inside.get("/health/ready"), 503, "not-ready", "/health/ready")
    assert (await inside.get("/health/live")).status_code == 200
    engine.fails_above = 1.0
    assert (await inside.get("/health/ready")).status_code == 200


@pytest.mark.anyio
async def test_a_stuck_engine_does_not_live(
    engine: MoodyEngine, inside: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    first = await hold_up(engine, inside)
    assert Settings().request_timeout_s < STUCK_AFTER_S
    monkeypatch.setattr("app.inference.predictor.STUCK_AFTER_S", 0.0)
    assert_problem(await inside.get("/health/live"), 503, "engine-stuck", "/health/live")
    assert_problem(await inside.get("/health/ready"), 503, "not-ready", "/health/ready")
    engine.open.set()
    await first
    assert (await inside.get("/health/live")).status_code == 200


def test_metadata(client: httpx.Client, checkpoint: Checkpoint):
    metadata = client.get("/metadata").json()
    assert metadata["card"] == checkpoint.card.model_dump(mode="json")
    assert metadata["engine"]["name"] == "onnxruntime"
    assert metadata["engine"]["device"] == "cpu"
    assert metadata["engine"]["threads"] >= 1
    assert metadata["input"]["formats"] == ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]
    assert metadata["input"]["shape"] == [1, 28, 28]
    assert metadata["limits"]["max_bytes"] == Settings().max_bytes
    assert metadata["versions"].keys() >= {"python", "onnxruntime", "pillow", "numpy"}


def test_docs_load_nothing_from_elsewhere(client: httpx.Client):
    page = client.get("/docs").text
    links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page)
    assert "/openapi.json" in links
    assert all(client.get(link).status_code == 200 for link in links)
    assert "//" not in page.replace("// ", "")


def assert_example_is_valid(content: dict, document: dict) -> None:
    """Each content has an example, and one in JSON holds what its schema requires."""
    for kind, described in content.items():
        schema = described["schema"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        example = described.get("example", schema.get("example"))
        assert example is not None
        if kind == "application/json":
            assert set(schema.get("required", ())) <= example.keys() <= schema["properties"].keys()


def test_openapi_documents_every_call_and_error(client: httpx.Client):
    document = client.get("/openapi.json").json()
    paths = document["paths"]
    assert paths.keys() >= {"/predict", "/predict/batch", "/health", "/metadata"}
    for path, calls in paths.items():
        for call in calls.values():
            assert call["summary"]
            for status, response in call["responses"].items():
                assert {"X-Request-ID", "Server-Timing"} <= response["headers"].keys(), path
                if int(status) < 400:
                    assert_example_is_valid(response["content"], document)
                    continue
                (content,) = response["content"].values()
                for slug, example in content["examples"].items():
                    if path.startswith("/v2"):
                        assert example["value"].keys() == {"error"}
                        continue
                    assert example["value"]["type"] == f"/problems/{slug}"
                    assert example["value"]["status"] == int(status)
    bodies = paths["/predict"]["post"]["requestBody"]["content"]
    assert bodies.keys() == {"multipart/form-data", "image/*"}
    documented = {
        (int(status), slug)
        for status, response in paths["/predict"]["post"]["responses"].items()
        if int(status) >= 400
        for slug in response["content"]["application/problem+json"]["examples"]
    }
    assert documented >= {(status, slug) for _, status, slug in BAD.values()}
    assert {status for status, _ in documented} >= {400, 408, 413, 415, 422, 500, 503, 504}
