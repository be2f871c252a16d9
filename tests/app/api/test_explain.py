"""POST /explain: what the model saw, where it looked, and the ink that the answer rests on."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.api.explain import prefers_png
from app.inference.engines import create_engine
from app.inference.explainer import MAX_WAITING
from app.settings import Settings
from app.wire import explanation_picture
from model.checkpoint.attribution import spread
from model.checkpoint.folder import Checkpoint, read_checkpoint, read_files, write_checkpoint
from tests.conftest import ROOT, Server, encode, serving
from tests.digits import load_digits

IMAGES, LABELS = load_digits()


def explain(client: httpx.Client, content: bytes, **headers: str) -> httpx.Response:
    response = client.post("/explain", files={"file": ("digit", content)}, headers=headers)
    assert response.status_code == 200, response.text
    return response


@pytest.fixture(scope="module")
def seven(client: httpx.Client) -> dict:
    return explain(client, encode(IMAGES[0])).json()


def test_answer_holds_the_prediction(client: httpx.Client, seven: dict):
    prediction = client.post("/predict", files={"file": encode(IMAGES[0])}).json()
    assert prediction["digit"] == 7
    assert prediction.keys() <= seven.keys()
    assert seven["probabilities"] == pytest.approx(prediction["probabilities"], abs=1e-6)


def test_input_is_what_the_model_saw(seven: dict):
    np.testing.assert_array_equal(seven["input"], IMAGES[0])


def test_attention_is_the_models_own(seven: dict, checkpoint: Checkpoint):
    engine = create_engine(checkpoint, "torch", "cpu", threads=1).explaining()
    expected = spread(engine.attention(IMAGES[:1, None])[0].mean(axis=1), (28, 28))
    blocks = seven["attention"]["blocks"]
    np.testing.assert_allclose([b["latents"] for b in blocks], expected, atol=2e-6)
    np.testing.assert_allclose([b["mean"] for b in blocks], expected.mean(axis=1), atol=2e-6)
    np.testing.assert_allclose(seven["attention"]["mean"], expected.mean(axis=(0, 1)), atol=2e-6)
    assert seven["attention"]["grid"] == [14, 14]


def test_deleting_what_the_answer_rests_on_undoes_it(client: httpx.Client):
    """A third of the ink, by attribution; as much at random leaves the answers as they are."""
    random = np.random.default_rng(0)
    files = []
    for image in IMAGES[:8]:
        attribution = np.array(explain(client, encode(image)).json()["attribution"]["map"])
        ink = np.flatnonzero(image)
        for order in (ink[np.argsort(-attribution.ravel()[ink])], random.permutation(ink)):
            rest = image.ravel().copy()
            rest[order[: len(ink) // 3]] = 0
            files.append(("files", ("i", encode(rest.reshape(28, 28)))))
    answers = client.post("/predict/batch", files=files).json()["predictions"]
    of_label = [a["probabilities"][LABELS[i // 2]] for i, a in enumerate(answers)]
    by_attribution, by_chance = np.mean(of_label[::2]), np.mean(of_label[1::2])
    assert by_attribution < by_chance - 0.2


def test_a_picture_is_answered_where_one_is_asked_for(client: httpx.Client):
    response = explain(client, encode(IMAGES[0]), Accept="image/png")
    assert response.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(response.content))
    picture.load()
    assert picture.width > 800
    seen = np.asarray(picture.convert("L").crop((272, 68, 272 + 224, 68 + 224)).resize((28, 28), 0))
    np.testing.assert_array_equal(seen, 255 - IMAGES[0])
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.ptp(colours, axis=1) > 60).sum() > 2000, "the maps are coloured"


@pytest.mark.parametrize(
    ("share", "words"), [(1.0, "100.0%"), (0.99999, "99.9%"), (0.834, "83%"), (0.0471, "4.7%")]
)
def test_the_picture_claims_no_certainty_that_there_is_not(share: float, words: str):
    assert explanation_picture._percent(share) == words


@pytest.mark.parametrize(
    ("accept", "png"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("image/png", True),
        ("image/*", True),
        ("application/json;q=0.5, image/png", True),
        ("image/png;q=0.5, application/json", False),
        ("image/png, */*;q=0.1", True),
        ("text/html, image/avif, image/webp, */*;q=0.8", False),
        ("image/png;q=0", False),
        ("image/png;q=nonsense", False),
    ],
)
def test_accept_header(accept: str, png: bool):
    assert prefers_png(accept) is png


def test_a_blank_picture_is_explained(client: httpx.Client):
    blank = encode(Image.new("L", (28, 28)))
    answer = explain(client, blank).json()
    assert not np.any(answer["attribution"]["map"])
    assert np.sum(answer["attention"]["mean"]) == pytest.approx(1, abs=1e-3)
    assert explain(client, blank, Accept="image/png").content.startswith(b"\x89PNG")


@pytest.mark.parametrize(("content", "status"), [(b"", 400), (b"text", 415), (b"BM--", 422)])
def test_what_cannot_be_read_is_refused_as_by_predict(
    client: httpx.Client, content: bytes, status: int
):
    explained, predicted = (
        client.post(path, files={"file": content}) for path in ("/explain", "/predict")
    )
    assert explained.status_code == predicted.status_code == status
    assert explained.json()["type"] == predicted.json()["type"]


def test_more_than_may_wait_are_refused_and_predictions_go_on(server: Server):
    content = encode(IMAGES[0])

    def post(path: str) -> httpx.Response:
        return httpx.post(server.url + path, files={"file": content}, timeout=60)

    with ThreadPoolExecutor(3 * MAX_WAITING) as threads:
        explained = [threads.submit(post, "/explain") for _ in range(3 * MAX_WAITING)]
        assert post("/predict").status_code == 200
        answers = [future.result() for future in explained]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) - len(refused) >= MAX_WAITING
    assert all(answer.status_code == 503 for answer in refused)
    assert all(answer.headers["retry-after"] for answer in refused)


def test_a_checkpoint_without_the_graph_predicts_and_says_what_it_lacks(tmp_path: Path):
    whole = read_checkpoint(ROOT / Settings().weights)
    files = read_files(whole)
    del files["explain.onnx"]
    write_checkpoint(tmp_path / "early", whole.card, files)
    with serving("--weights", str(tmp_path / "early")) as early:
        upload = {"file": encode(IMAGES[0])}
        assert httpx.post(early.url + "/predict", files=upload).json()["digit"] == 7
        refusal = httpx.post(early.url + "/explain", files=upload)
    assert refusal.status_code == 501
    assert "perceiver export" in refusal.json()["detail"]
