"""The application in this process, with an engine that can be held up."""

import asyncio
import threading
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from app.application import Application, create_app
from app.inference.engines import EngineName, Outputs
from app.inference.predictor import Predictor
from app.settings import Settings
from model.checkpoint.folder import Checkpoint
from tests.conftest import encode
from tests.digits import load_digits

SEVEN = encode(load_digits()[0][0])
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
    settings = Settings(max_queue=2, max_files=2, request_timeout_s=2)
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
