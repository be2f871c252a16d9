"""Predictions over HTTP: the same as the model's own, whatever form the picture has."""

import asyncio
import json
import re
import subprocess

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from app.inference.engines import create_engine
from model.checkpoint.folder import Checkpoint
from tests.conftest import ROOT, Server, encode
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
# One clear example of each digit.
EXAMPLES = [IMAGES[np.flatnonzero(digit == LABELS)[0]] for digit in range(10)]
EXAMPLES[5] = IMAGES[15]


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint) -> np.ndarray:
    """The model's own probabilities of all images, (1000, 10)."""
    engine = create_engine(checkpoint, "onnxruntime", "cpu", threads=2)
    logits = np.concatenate(
        [engine.compute(part).logits for part in np.split(IMAGES[:, None], 125)]
    )
    return checkpoint.card.calibration.probabilities(logits)


def upload(client: httpx.Client, content: bytes) -> dict:
    response = client.post("/predict", files={"file": ("digit", content)})
    assert response.status_code == 200, response.text
    return response.json()


def enlarged(image: np.ndarray, size: int) -> Image.Image:
    """As if drawn larger, with air around it."""
    inner = size * 3 // 4
    canvas = Image.new("L", (size, size))
    drawn = Image.fromarray(image).resize((inner, inner), Image.Resampling.BICUBIC)
    canvas.paste(drawn, ((size - inner) // 2,) * 2)
    return canvas


def inked(image: np.ndarray, mode: str) -> Image.Image:
    """Ink on nothing: the digit is all that is opaque."""
    strokes = enlarged(image, 112)
    picture = Image.new("RGBA", strokes.size, (20, 30, 120, 0))
    picture.putalpha(strokes)
    return picture.convert(mode)


def lying(image: np.ndarray, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """A photo taken with the camera turned, and the EXIF data that tells."""
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return ImageOps.invert(enlarged(image, 112)).convert("RGB").transpose(turn), exif


FORMS = {
    "png-28": lambda i: encode(i),
    "png-28-negative": lambda i: encode(255 - i),
    "png-64": lambda i: encode(enlarged(i, 64)),
    "png-300-dark-on-light": lambda i: encode(ImageOps.invert(enlarged(i, 300))),
    "png-1000-light-on-dark": lambda i: encode(enlarged(i, 1000)),
    "jpeg-3000": lambda i: encode(ImageOps.invert(enlarged(i, 3000)), "JPEG"),
    "jpeg-colour": lambda i: encode(
        ImageOps.colorize(enlarged(i, 200), "#ffe", "#238"), "JPEG", quality=80
    ),
    "jpeg-cmyk": lambda i: encode(enlarged(i, 112).convert("CMYK"), "JPEG"),
    "jpeg-exif-180": lambda i: encode(lying(i, 3)[0], "JPEG", exif=lying(i, 3)[1]),
    "jpeg-exif-90": lambda i: encode(lying(i, 6)[0], "JPEG", exif=lying(i, 6)[1]),
    "png-palette": lambda i: encode(enlarged(i, 112).convert("RGB").quantize(16)),
    "png-rgba-on-nothing": lambda i: encode(inked(i, "RGBA")),
    "png-la-on-nothing": lambda i: encode(inked(i, "LA")),
    "png-palette-transparent": lambda i: encode(
        enlarged(i, 112).point(lambda v: 255 * (v > 127)).convert("P"), transparency=0
    ),
    "png-1-bit": lambda i: encode(enlarged(i, 112).point(lambda v: 255 * (v > 127)).convert("1")),
    "png-16-bit": lambda i: encode(np.asarray(enlarged(i, 112)).astype(np.uint16) * 257),
    "tiff-16-bit": lambda i: encode(np.asarray(enlarged(i, 112)).astype(np.uint16) * 257, "TIFF"),
    "tiff-float": lambda i: encode(np.asarray(enlarged(i, 112)).astype(np.float32), "TIFF"),
    "tiff-lzw": lambda i: encode(enlarged(i, 112), "TIFF", compression="tiff_lzw"),
    "gif": lambda i: encode(enlarged(i, 112), "GIF"),
    "gif-animated": lambda i: encode(
        enlarged(i, 112), "GIF", save_all=True, append_images=[Image.new("L", (112, 112), 255)]
    ),
    "bmp": lambda i: encode(enlarged(i, 112).convert("RGB"), "BMP"),
    "webp": lambda i: encode(enlarged(i, 112).convert("RGB"), "WEBP"),
    "webp-lossless-alpha": lambda i: encode(inked(i, "RGBA"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_is_read(client: httpx.Client, form: str):
    files = [("files", (str(digit), FORMS[form](i))) for digit, i in enumerate(EXAMPLES)]
    answer = client.post("/predict/batch", files=files).json()
    assert [item["digit"] for item in answer["predictions"]] == list(range(10))


def test_answer_is_as_documented(client: httpx.Client, checkpoint: Checkpoint):
    answer = upload(client, encode(EXAMPLES[7]))
    assert list(answer) == [
        *("digit", "label", "confidence", "probabilities", "novelty", "recognized"),
        *("model", "version"),
    ]
    assert (answer["digit"], answer["label"]) == (7, "7")
    assert (answer["model"], answer["version"]) == (checkpoint.card.name, checkpoint.card.version)
    assert answer["confidence"] == max(answer["probabilities"]) == answer["probabilities"][7]
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("kind", ["image/png", "image/x-anything", "IMAGE/PNG; a=b"])
def test_the_image_may_be_the_body(client: httpx.Client, kind: str):
    content = encode(EXAMPLES[4])
    body = client.post("/predict", content=content, headers={"Content-Type": kind})
    assert body.status_code == 200
    np.testing.assert_allclose(
        body.json()["probabilities"], upload(client, content)["probabilities"], atol=1e-6
    )
    chunked = client.post("/predict", content=iter([content]), headers={"Content-Type": kind})
    assert chunked.json()["digit"] == 4


def test_predictions_are_the_models_own(client: httpx.Client, expected: np.ndarray):
    answers = [upload(client, encode(image))["probabilities"] for image in IMAGES[:200]]
    np.testing.assert_allclose(answers, expected[:200], atol=1e-5)


def test_accuracy_is_the_models_own(client: httpx.Client, expected: np.ndarray):
    readings = []
    for start in range(0, 1000, 50):
        files = [("files", ("i", encode(image))) for image in IMAGES[start : start + 50]]
        answer = client.post("/predict/batch", files=files).json()
        readings += [item["digit"] for item in answer["predictions"]]
    assert (np.array(readings) == LABELS).sum() == (expected.argmax(axis=1) == LABELS).sum()


def test_a_batch_of_nothing_but_errors_harms_nobody(client: httpx.Client):
    files = [("files", ("", content, "")) for content in (b"", b"x", b"GIF89a")]
    answer = client.post("/predict/batch", files=files).json()
    assert [item["error"]["status"] for item in answer["predictions"]] == [400, 415, 422]
    content = (ROOT / "app/samples/7.png").read_bytes()
    assert client.post("/predict", files={"file": content}).json()["digit"] == 7


def test_a_batch_tells_errors_in_their_places(client: httpx.Client):
    contents = [encode(EXAMPLES[1]), b"", b"text", encode(EXAMPLES[2])[:90], encode(EXAMPLES[3])]
    files = [("files", ("i", content)) for content in contents]
    response = client.post("/predict/batch", files=files)
    assert response.status_code == 200
    one, *errors, three = response.json()["predictions"]
    assert (one["digit"], three["digit"]) == (1, 3)
    assert [(error["error"]["status"], error["error"]["instance"]) for error in errors] == [
        (400, "/predict/batch#1"),
        (415, "/predict/batch#2"),
        (422, "/predict/batch#3"),
    ]


@pytest.mark.anyio
async def test_parallel_clients_get_each_their_own(server: Server, expected: np.ndarray):
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:

        async def ask(index: int) -> list[float]:
            image = encode(IMAGES[index])
            answer = await client.post("/predict", files={"file": image})
            return answer.json()["probabilities"]

        for start in (0, 64):
            answers = await asyncio.gather(*(ask(start + index) for index in range(64)))
            np.testing.assert_allclose(answers, expected[start : start + 64], atol=1e-5)


def test_answers_carry_id_and_timing(client: httpx.Client):
    headers = {"X-Request-ID": "my-id-1"}
    response = client.post("/predict", files={"file": encode(EXAMPLES[0])}, headers=headers)
    assert response.headers["x-request-id"] == "my-id-1"
    phases = re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"])
    names = [name for name, _ in phases]
    assert names == ["decode", "preprocess", "queue", "infer", "total"]
    *parts, total = (float(duration) for _, duration in phases)
    assert sum(parts) <= total


@pytest.mark.parametrize("unfit", ["", "x" * 129, "with space", "ü".encode("latin-1")])
def test_an_unfit_request_id_is_replaced(client: httpx.Client, unfit: str | bytes):
    ids = [
        client.get("/health/live", headers={"X-Request-ID": unfit}).headers["x-request-id"]
        for _ in range(2)
    ]
    assert ids[0] != ids[1]
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in ids)


def test_the_greeting_leads_on(server: Server, client: httpx.Client):
    line = next(line for line in server.greeting.splitlines() if "curl" in line)
    command = line[line.index("curl") :]
    printed = subprocess.run(
        command.replace("curl", "curl -s", 1), shell=True, cwd=ROOT, capture_output=True, check=True
    )
    assert json.loads(printed.stdout)["digit"] == 7
    for page in ("/docs", "/metadata"):
        assert server.url + page in server.greeting
        assert client.get(page).status_code == 200
