"""Models put in place of one another, without a server."""

import asyncio
import gc
import subprocess
import sys
import weakref

import pytest

from app.inference.batcher import ClosedError
from app.inference.models import HOLD, Hold, Model, Models
from app.inference.predictor import load_predictor
from app.settings import Settings
from model.checkpoint.folder import Checkpoint
from tests.conftest import ROOT, encode
from tests.digits import load_digits

SEVEN = encode(load_digits()[0][0])
LIMIT_S = 30.0


@pytest.fixture
def settings() -> Settings:
    return Settings(engine="onnxruntime", device="cpu")


async def label(model: Model) -> str:
    deadline = asyncio.get_running_loop().time() + LIMIT_S
    return (await model.predictor.predict(SEVEN, deadline)).label


def models_of(checkpoint: Checkpoint, settings: Settings) -> list[Model]:
    return [Model(load_predictor(settings, checkpoint)) for _ in range(2)]


async def use_until_it_ends(model: Model) -> None:
    async with asyncio.timeout(LIMIT_S):
        while True:
            await label(model)


@pytest.mark.anyio
async def test_who_has_a_model_may_use_it_until_it_is_retired(
    checkpoint: Checkpoint, settings: Settings
):
    seen: list[Model] = []
    models = Models(seen.append, linger_s=3600)
    assert models.default is None
    first, second = models_of(checkpoint, settings)
    models.put_in_place(first)
    assert models.default is models.get(checkpoint.card.name) is first
    assert models.get("another") is None
    models.put_in_place(second)
    assert models.default is second
    assert seen == [first, second]
    assert await label(first) == await label(second) == "7"
    await models.close()
    for model in (first, second):
        with pytest.raises(ClosedError):
            await label(model)


@pytest.mark.anyio
async def test_a_model_whose_time_is_over_is_closed(checkpoint: Checkpoint, settings: Settings):
    models = Models(lambda model: None, linger_s=0)
    first, second = models_of(checkpoint, settings)
    models.put_in_place(first)
    explanation = await first.explainer.explain(SEVEN, asyncio.get_running_loop().time() + LIMIT_S)
    assert explanation.prediction.label == "7"
    models.put_in_place(second)
    with pytest.raises(ClosedError):
        await use_until_it_ends(first)
    with pytest.raises(ClosedError):
        await first.explainer.explain(SEVEN, asyncio.get_running_loop().time() + LIMIT_S)
    assert await label(second) == "7"
    await models.close()


@pytest.mark.anyio
async def test_a_model_is_retired_when_the_last_request_that_holds_it_has_ended(
    checkpoint: Checkpoint, settings: Settings
):
    models = Models(lambda model: None, linger_s=3600)
    first, second = models_of(checkpoint, settings)
    models.put_in_place(first)
    holds = [Hold(), Hold()]
    for hold in holds:
        HOLD.set(hold)
        assert models.take_default() is models.get(checkpoint.card.name) is first
    models.put_in_place(second)
    for hold in holds:
        assert not await models.until_retired(0.05)
        assert await label(first) == "7"
        hold.release()
    assert await models.until_retired(LIMIT_S)
    with pytest.raises(ClosedError):
        await label(first)
    assert await label(second) == "7"
    HOLD.set(None)
    await models.close()


@pytest.mark.anyio
async def test_a_model_that_nobody_holds_gives_its_memory_back(
    checkpoint: Checkpoint, settings: Settings
):
    """At once: the garbage collector may come much later."""
    models = Models(lambda model: None, linger_s=3600)
    first = Model(load_predictor(settings, checkpoint))
    engine = weakref.ref(first.predictor.engine)
    models.put_in_place(first)
    models.put_in_place(Model(load_predictor(settings, checkpoint)))
    del first
    gc.disable()
    try:
        assert await models.until_retired(LIMIT_S)
        assert engine() is None
    finally:
        gc.enable()
    await models.close()


def test_inference_needs_no_server():
    code = "import sys, app.inference.models, app.inference.reader; "
    code += "names = ('starlette', 'fastapi', 'uvicorn', 'app.telemetry', 'app.wire'); "
    code += "print([name for name in names if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.strip() == "[]", result.stderr
