"""The typed client against the running service: full, draining, gone."""

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import anyio
import httpx
import numpy as np
import pytest

from app.client import AsyncClient, Client, ProblemError, errors
from app.wire.problems import KINDS
from tests.conftest import ROOT, START_LIMIT_S, Server, encode, serving
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
SEVEN = ROOT / "app/samples/7.png"
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def full() -> Server:
    """A service that two images fill."""
    flags = ("--max-queue", "2", "--max-files", "2", "--max-batch", "1", "--max-body-bytes", "9000")
    with serving(*flags) as running:
        yield running


@pytest.mark.parametrize("form", [bytes, str, Path, BytesIO])
def test_predict(server: Server, form: Callable):
    image = {str: str, Path: Path}.get(form, lambda path: form(path.read_bytes()))(SEVEN)
    with Client(server.url) as client:
        prediction = client.predict(image)
    assert (prediction.digit, prediction.label, prediction.recognized) == (7, "7", True)
    assert prediction.confidence == max(prediction.probabilities)


def test_batches_are_split_to_the_limits(full: Server):
    images = [encode(image) for image in IMAGES[:9]]
    with Client(full.url) as client:
        limits = client.metadata().limits
        assert (limits.max_files, limits.max_body_bytes) == (2, 9000)
        read = client.predict_batch([*images, b"no image", bytes(10_000), images[0]])
    assert [p.digit == label for p, label in zip(read, LABELS[:9], strict=False)].count(True) >= 8
    assert isinstance(read[9], errors.UnsupportedImageError)
    assert isinstance(read[10], errors.TooManyBytesError)  # no request may carry it
    assert read[11] == read[0]
    assert client.predict_batch([]) == []


def test_explain_and_read(server: Server):
    with Client(server.url) as client:
        explanation = client.explain(encode(IMAGES[0]))
        number = client.read(encode(np.hstack([IMAGES[0], IMAGES[2]])))
    np.testing.assert_array_equal(explanation.input, IMAGES[0])
    assert np.shape(explanation.attribution) == np.shape(explanation.attention) == (28, 28)
    assert explanation.prediction.digit == 7
    assert number.text == "71"
    assert (number.width, number.height) == (56, 28)
    assert number.lines[0].digits[1].box.x >= 28


async def test_full_service_is_asked_again(full: Server):
    image = encode(IMAGES[0])
    async with AsyncClient(full.url, retries=30) as client:
        predictions = []

        async def one() -> None:
            predictions.append(await client.predict(image))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
        assert [p.digit for p in predictions] == [7] * 8
        assert (await client.metadata()).labels == tuple("0123456789")
        assert [p.digit for p in await client.predict_batch([image] * 3)] == [7] * 3
        assert (await client.explain(image)).prediction.digit == 7
        assert (await client.read(image)).text == "7"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", errors.EmptyImageError),
        (b"text", errors.UnsupportedImageError),
        (b"\x89PNG\r\n\x1a\n...", errors.UnreadableImageError),
    ],
)
def test_refusals_have_a_type_per_cause(server: Server, content: bytes, kind: type[ProblemError]):
    with Client(server.url) as client, pytest.raises(kind) as caught:
        client.predict(content)
    assert caught.value.type == f"/problems/{kind.slug}"
    assert caught.value.status == KINDS[kind.slug].status
    assert caught.value.detail
    assert caught.value.request_id


def test_types_of_errors_are_the_services(server: Server):
    kinds = [
        k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, ProblemError)
    ]
    slugs = {kind.slug for kind in kinds} - {""}
    assert len(slugs) >= 10
    assert slugs <= KINDS.keys()


def test_api_key(tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-some-length\n")
    with serving("--api-keys", "a-key-of-some-length") as running:
        with Client(running.url, api_key="a-key-of-some-length") as client:
            assert client.predict(SEVEN).digit == 7
        with Client(running.url) as client, pytest.raises(errors.UnauthorizedError):
            client.predict(SEVEN)


async def test_draining_service_still_answers_and_then_is_gone():
    with serving("--drain-delay-s", str(START_LIMIT_S)) as running:
        async with AsyncClient(running.url, retries=0) as client:
            assert await client.health()
            running.process.terminate()
            with anyio.fail_after(START_LIMIT_S):
                while await client.health():
                    pass
            assert (await client.predict(SEVEN)).digit == 7
        running.process.terminate()  # once more: it need not wait for the delay
        running.process.wait(START_LIMIT_S)
        async with AsyncClient(running.url, retries=1) as client:
            assert not await client.health()
            with pytest.raises(errors.ConnectionFailedError):
                await client.predict(SEVEN)


def test_something_else_on_the_port(server: Server):
    with Client(server.url + "/docs") as client, pytest.raises(ProblemError) as caught:
        client.metadata()
    assert caught.value.status == 404


def test_refusals_of_what_stands_between_are_told():
    refusal = ProblemError.of_response(httpx.Response(502, json={"message": "no route"}))
    assert (refusal.status, str(refusal)) == (502, "Bad Gateway")


def test_pauses_are_read_from_retry_after():
    assert errors.seconds("3") == 3.0
    assert errors.seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert errors.seconds("Wed, 21 Oct 2015 07:28:00 -0000") == 0.0
    assert errors.seconds("soon") is None
    assert errors.seconds(None) is None


def test_importing_the_client_imports_no_server():
    code = (
        "import sys, app.client; sys.exit(bool({'fastapi','onnxruntime','PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
