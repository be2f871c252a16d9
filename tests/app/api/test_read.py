"""POST /read: numbers of several digits, each digit in its place."""

from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from model.checkpoint.folder import Checkpoint, read_files, write_checkpoint
from model.data.labelled import Labelled
from model.modalities.digits.synthetic.strips import STYLES, Strip, write
from tests.app.api.test_bad_requests import assert_problem
from tests.app.api.test_predict import EXAMPLES
from tests.conftest import encode, serving
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
DIGITS = Labelled(IMAGES[:, None], LABELS)
CLEAR = Labelled(np.stack(EXAMPLES)[:, None], np.arange(10))


def read(client: httpx.Client, picture: Image.Image, kind: str = "PNG", **options: object) -> dict:
    content = encode(picture, kind, **options)
    response = client.post("/read", files={"file": ("number", content)})
    assert response.status_code == 200, response.text
    return response.json()


def strips(style: str, count: int, length: int, digits: Labelled = DIGITS) -> list[Strip]:
    random = np.random.default_rng(7)
    return [write(digits, length, STYLES[style], random) for _ in range(count)]


@pytest.mark.parametrize(
    ("style", "least"), [("separated", 18), ("slanted", 17), ("noisy", 17), ("ruled", 16)]
)
def test_numbers_are_read(client: httpx.Client, style: str, least: int):
    made = strips(style, 20, 5)
    assert sum(read(client, strip.picture)["text"] == strip.text for strip in made) >= least


def test_touching_digits_are_parted(client: httpx.Client):
    made = strips("touching", 20, 3)
    assert sum(read(client, strip.picture)["text"] == strip.text for strip in made) >= 16


def test_boxes_are_where_the_digits_are(client: httpx.Client):
    strip = strips("separated", 1, 6, CLEAR)[0]
    answer = read(client, strip.picture)
    assert (answer["width"], answer["height"]) == strip.picture.size
    (line,) = answer["lines"]
    assert line["text"] == answer["text"] == strip.text
    for number, digit in enumerate(line["digits"], 1):
        rows, columns = np.nonzero(strip.owner == number)
        box = digit["box"]
        slack = 0.15 * np.ptp(rows)
        assert box["x"] == pytest.approx(columns.min(), abs=slack)
        assert box["y"] == pytest.approx(rows.min(), abs=slack)
        assert box["x"] + box["width"] == pytest.approx(columns.max() + 1, abs=slack)
        assert box["y"] + box["height"] == pytest.approx(rows.max() + 1, abs=slack)
        assert sum(digit["probabilities"]) == pytest.approx(1)
        assert digit["confidence"] == max(digit["probabilities"])
    product = np.prod([digit["confidence"] for digit in line["digits"]])
    assert line["confidence"] == pytest.approx(product)


def test_boxes_are_of_the_upright_picture(client: httpx.Client):
    """Though a large JPEG is decoded reduced, and its EXIF data turns it."""
    strip = strips("separated", 1, 4, CLEAR)[0]
    width, height = strip.picture.size
    large = strip.picture.resize((12 * width, 12 * height), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = large.transpose(Image.Transpose.ROTATE_90)
    answer = read(client, lying, "JPEG", exif=exif, quality=85)
    assert answer["text"] == strip.text
    assert (answer["width"], answer["height"]) == large.size
    box = answer["lines"][0]["digits"][0]["box"]
    assert box["x"] / 12 == pytest.approx(np.nonzero(strip.owner == 1)[1].min(), abs=5)


def test_lines_are_kept_apart(client: httpx.Client):
    above, below = strips("separated", 2, 5, CLEAR)
    width = max(above.picture.width, below.picture.width)
    page = Image.new("L", (width, above.picture.height + below.picture.height), 230)
    for strip, top in ((above, 0), (below, above.picture.height)):
        ink = Image.fromarray(np.where(strip.owner > 0, np.uint8(40), np.uint8(230)))
        page.paste(ink, (0, top))
    answer = read(client, page)
    assert [line["text"] for line in answer["lines"]] == [above.text, below.text]
    assert answer["text"] == f"{above.text}\n{below.text}"


def test_a_blank_picture_says_nothing(client: httpx.Client):
    answer = read(client, Image.new("RGB", (200, 80), "white"))
    assert (answer["text"], answer["lines"]) == ("", [])


def test_a_page_of_marks_is_refused(client: httpx.Client):
    random = np.random.default_rng(0)
    page = np.full((600, 900), 255, np.uint8)
    for row in range(10, 590, 20):
        for column in range(10, 890, 16):
            page[row : row + 12, column : column + int(random.integers(3, 9))] = 0
    response = client.post("/read", files={"file": encode(page)})
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/too-many-marks"


@pytest.mark.parametrize("rows", [1, 8, 30])
def test_strokes_on_a_line_are_refused(client: httpx.Client, rows: int):
    """Each neighbour might be a part of the same digit; the picture's file has 2 KB."""
    page = np.full((600, 1000), 255, np.uint8)
    step = 600 // rows
    for top in range(0, 600, step):
        for left in range(2, 998, 4):
            page[top + 2 : top + step - 4, left : left + 2] = 0
        page[top + step - 6 : top + step - 4, 2:-2] = 0 if rows > 1 else 255
    response = client.post("/read", files={"file": encode(page)})
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/too-many-marks"


@pytest.mark.parametrize(("content", "status"), [(b"", 400), (b"text", 415), (b"BM--", 422)])
def test_what_cannot_be_read_is_refused(client: httpx.Client, content: bytes, status: int):
    assert client.post("/read", files={"file": content}).status_code == status


def test_a_checkpoint_without_its_parts_predicts_and_has_no_read(
    checkpoint: Checkpoint, tmp_path: Path
):
    files = read_files(checkpoint)
    del files["parts/judge.npz"]
    write_checkpoint(tmp_path / "whole", checkpoint.card, files)
    upload = {"file": encode(EXAMPLES[7])}
    with serving("--weights", str(tmp_path / "whole")) as server:
        assert httpx.post(f"{server.url}/predict", files=upload).json()["label"] == "7"
        refusal = httpx.post(f"{server.url}/read", files=upload)
    assert_problem(refusal, 404, "no-parts", "/read")
