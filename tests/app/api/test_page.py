"""The page at /, in a real Chromium that asks a real server."""

import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    TimeoutError,
    expect,
    sync_playwright,
)

from model.checkpoint.folder import Checkpoint
from tests.conftest import ROOT, Server, encode, serving
from tests.strokes import Point, trace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SAMPLES = ROOT / "app/samples"
DIGIT_OF_TEN = [10, 5, 35, 30, 6, 15, 11, 17, 84, 9]  # one image of each class among `digits`
PHONE = {"width": 360, "height": 740}
LOOK = {"viewport": {"width": 1000, "height": 800}, "reduced_motion": "reduce"}
BUDGET = 60_000  # bytes of all that the page is made of, before compression

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextmanager
def visiting(
    browser: Browser, url: str, refusals: bool = False, state: str = "ready", **options
) -> Iterator[Page]:
    """The page in a browser of its own, as `watched` has it."""
    context = browser.new_context(**{**LOOK, **options})
    with watched(context, url, refusals, state) as page:
        yield page
    context.close()


@contextmanager
def watched(
    context: BrowserContext, url: str, refusals: bool = False, state: str = "ready"
) -> Iterator[Page]:
    """The page, open; in the end it has asked no other host and has logged no error.

    refusals: the browser may log that the service refused a request.
    """
    page = context.new_page()
    page.set_default_timeout(15_000)
    expect.set_options(timeout=15_000)
    faults: list[str] = []

    def logged(message) -> None:
        refused = message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not (refused and refusals):
            faults.append(f"{message.type}: {message.text} {message.location}")

    page.on("console", logged)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith((url, "blob:")) or faults.append(request.url),
    )
    page.goto(url)
    expect(page.locator("#state")).to_have_attribute("data-state", state)
    yield page
    assert not faults
    page.close()


@pytest.fixture(scope="module")
def context(browser: Browser) -> BrowserContext:
    return browser.new_context(**LOOK)


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Iterator[Page]:
    with watched(context, server.url) as page:
        yield page


@pytest.fixture(scope="module")
def strokes(digits: tuple[np.ndarray, np.ndarray]) -> list[list[list[Point]]]:
    """A digit of each class as strokes of a hand."""
    return [trace(digits[0][index]) for index in DIGIT_OF_TEN]


@pytest.fixture(scope="module")
def strict_server() -> Iterator[Server]:
    """A server that wants a key, and takes little at once."""
    limits = ("--max-files", "2", "--max-bytes", "10000")
    with serving("--api-keys", "open-sesame", *limits) as running:
        yield running


def on_pad(page: Page, strokes: list[list[Point]]) -> list[list[Point]]:
    """Strokes in the page's pixels."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    left, top, width, height = (box[key] for key in ("x", "y", "width", "height"))
    return [[(left + x * width, top + y * height) for x, y in stroke] for stroke in strokes]


def draw(page: Page, strokes: list[list[Point]]) -> None:
    for first, *rest in on_pad(page, strokes):
        page.mouse.move(*first)
        page.mouse.down()
        for point in rest:
            page.mouse.move(*point)
        page.mouse.up()


def expect_settled(page: Page) -> None:
    """Nothing of the answer to what is on the pad now changes any more."""
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")


def expect_digit(page: Page, digit: int | str) -> None:
    """The settled answer, as it is seen and as it is read out."""
    try:
        page.wait_for_function(
            """digit => document.querySelector("#answer").ariaBusy === "false"
                && document.querySelector("#digit").textContent === digit
                && document.querySelector("#bars .best .name")?.textContent === digit
                && document.querySelector("#live").textContent.startsWith(digit + ". ")""",
            arg=str(digit),
        )
    except TimeoutError:
        pytest.fail(f"no {digit} but {page.locator('#answer').inner_text()!r}")


@in_browser
def test_reads_digits_as_a_hand_draws_them(page: Page, strokes: list[list[list[Point]]]):
    for digit in (0, 4, 6, 9):  # the others are drawn below
        draw(page, strokes[digit])
        expect_digit(page, digit)
        if digit > 5:  # a closer look finds no number in it
            expect(page.locator("#sight")).to_be_visible()
            expect(page.locator("#string")).to_be_hidden()
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#words")).to_have_text("Draw a digit")


@in_browser
def test_answers_while_the_pen_is_down(page: Page, strokes: list[list[list[Point]]]):
    (first, *rest), *_ = on_pad(page, strokes[3])
    page.mouse.move(*first)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point)
    expect(page.locator("#digit")).to_have_text("3")
    page.mouse.up()


@in_browser
@pytest.mark.parametrize(("pointer", "digit"), [("finger", 2), ("pen", 8)])
def test_draws_by(pointer: str, digit: int, browser: Browser, server: Server, strokes):
    with visiting(browser, server.url, has_touch=True, viewport=PHONE) as page:
        wire = page.context.new_cdp_session(page)

        def send(event: str, point: Point) -> None:
            x, y = point
            if pointer == "finger":
                touches = [] if event == "End" else [{"x": x, "y": y}]
                message = {"type": f"touch{event}", "touchPoints": touches}
                wire.send("Input.dispatchTouchEvent", message)
            else:
                kind = {"Start": "Pressed", "Move": "Moved", "End": "Released"}[event]
                message = {"type": f"mouse{kind}", "x": x, "y": y, "pointerType": "pen"}
                wire.send("Input.dispatchMouseEvent", {**message, "button": "left"})

        for first, *rest in on_pad(page, strokes[digit]):
            send("Start", first)
            for point in rest:
                send("Move", point)
            send("End", rest[-1])
        expect_digit(page, digit)
        assert page.evaluate("scrollY") == 0  # drawing does not scroll


@in_browser
def test_draws_undoes_and_clears_by_keyboard(page: Page):
    press = page.keyboard.press
    page.get_by_role("link", name="Skip to the drawing pad").focus()
    press("Enter")
    expect(page.locator("#pad")).to_be_focused()

    def go(steps: int, *keys: str) -> None:
        for key in keys * steps:
            press(key)

    go(6, "ArrowUp")
    press("Space")
    go(12, "ArrowDown", "Shift+ArrowLeft")
    press("Space")
    expect_digit(page, 1)
    go(12, "ArrowUp", "Shift+ArrowRight")
    go(7, "ArrowLeft")
    press("Space")
    go(7, "ArrowRight")
    press("Space")
    expect_digit(page, 7)
    press("Control+z")
    expect_digit(page, 1)
    press("Delete")
    expect(page.locator("#words")).to_have_text("Draw a digit")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


@in_browser
def test_says_what_does_not_look_like_a_digit(page: Page):
    draw(page, [[(0.2, 0.2), (0.8, 0.8)], [(0.8, 0.2), (0.2, 0.8)], [(0.1, 0.5), (0.9, 0.5)]])
    expect_settled(page)
    expect(page.locator("#words")).to_have_text(re.compile("look like a digit"))
    expect(page.locator("#live")).to_contain_text("look like a digit. The closest is")
    expect(page.locator("#sight")).to_be_visible()
    expect(page.locator("#string")).to_be_hidden()
    page.get_by_role("button", name="Sample of a 4").click()
    expect_digit(page, 4)
    page.get_by_role("button", name="Sample of a letter").click()
    expect(page.get_by_role("img", name="letter.png")).to_be_visible()
    expect_settled(page)
    expect(page.locator("#words")).to_have_text(re.compile("look like a digit"))


@in_browser
def test_a_stale_answer_never_overwrites_a_newer_one(page: Page):
    held = []
    page.route("**/predict", lambda route: held.append(route), times=1)
    page.get_by_role("button", name="Sample of a 3").click()
    page.get_by_role("button", name="Sample of a 8").click()
    expect_digit(page, 8)
    assert len(held) == 1
    held[0].continue_()
    page.wait_for_load_state("networkidle")
    expect(page.locator("#digit")).to_have_text("8")


@in_browser
def test_samples_uploads_and_pastes(page: Page):
    page.get_by_role("button", name="Sample of a 4").press("Enter")
    expect_digit(page, 4)
    page.locator("#files").set_input_files(SAMPLES / "2.png")
    expect_digit(page, 2)
    expect(page.get_by_role("img", name="2.png")).to_be_visible()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async () => {
            const blob = await (await fetch("web/samples/6.png")).blob();
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }"""
    )
    page.keyboard.press("Control+v")
    expect_digit(page, 6)
    page.evaluate(
        """async () => {
            const given = new DataTransfer();
            const blob = await (await fetch("web/samples/5.png")).blob();
            given.items.add(new File([blob], "5.png", { type: "image/png" }));
            const options = { dataTransfer: given, bubbles: true, cancelable: true };
            document.body.dispatchEvent(new DragEvent("drop", options));
        }"""
    )
    expect_digit(page, 5)


@in_browser
def test_shows_what_the_model_saw_and_where_it_looked(page: Page, checkpoint: Checkpoint):
    page.get_by_role("button", name="Sample of a 2").click()
    expect(page.locator("#sight")).to_be_visible()
    seen = page.locator("#seen").evaluate(
        """canvas => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, 28, 28);
            return Array.from(data.filter((_, index) => index % 4 === 0));
        }"""
    )
    # A sample is in MNIST's form, which passes pixel for pixel.
    assert seen == np.array(Image.open(SAMPLES / "2.png")).ravel().tolist()
    maps = page.get_by_role("radio")
    model = checkpoint.card.model
    assert maps.count() == 1 + model.depth * (1 + model.num_latents)
    expect(page.locator("#looked-caption")).to_have_text("Where it looked")
    maps.first.press("ArrowRight")
    expect(page.locator("#looked-caption")).to_have_text("Where block 1 looked")
    maps.last.check(force=True)
    caption = f"Where latent {model.num_latents} of block {model.depth} looked"
    expect(page.locator("#looked-caption")).to_have_text(caption)
    page.get_by_role("button", name="Sample of a 5").click()
    expect_digit(page, 5)
    expect(page.locator("#looked-caption")).to_have_text(caption)  # the choice stays


@in_browser
def test_reads_several_digits_and_boxes_them(
    page: Page, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
):
    images, labels = digits
    strip = np.pad(np.concatenate(images[:5], axis=1), 20)
    number = "".join(map(str, labels[:5]))
    (tmp_path / "number.png").write_bytes(encode(255 - strip))
    page.locator("#files").set_input_files(tmp_path / "number.png")
    string = page.get_by_role("group", name="Digits")
    expect(string).to_have_text(number)
    expect(page.locator("#live")).to_contain_text(" ".join(number))
    expect(page.locator("#words")).to_have_text("5 digits")
    boxes = page.locator("#boxes rect")
    assert boxes.count() == 5
    # Each lies on its digit in the picture as it is shown, which fills the pad's width.
    picture = page.locator("#picture").bounding_box()
    assert picture is not None
    scale = picture["width"] / strip.shape[1]
    for index in range(5):
        box = boxes.nth(index).bounding_box()
        assert box is not None
        middle = (box["x"] + box["width"] / 2 - picture["x"]) / scale
        assert abs(middle - (20 + 28 * (index + 0.5))) < 5
        height = picture["y"] + picture["height"] / 2 - (box["y"] + box["height"] / 2)
        assert abs(height / scale) < 5
    page.get_by_role("button", name="Sample of a postcode").click()
    expect(string).to_have_text("40317")
    expect(boxes).to_have_count(5)
    page.locator("#files").set_input_files(tmp_path / "number.png")
    expect(string).to_have_text(number)
    string.get_by_role("button").nth(2).press("Enter")
    expect(page.locator("#bars .best .name")).to_have_text(number[2])
    expect(boxes.nth(2)).to_have_class("chosen")
    boxes.nth(4).click()
    expect(page.locator("#bars .best .name")).to_have_text(number[4])
    expect(page.locator("#snippet")).to_contain_text("/read")
    page.get_by_role("button", name="Sample of a 1").click()
    expect_digit(page, 1)
    expect(string).to_be_hidden()


@in_browser
def test_camera(page: Page):
    button = page.locator("#camera")
    button.click()
    expect(button).to_have_text("Take it")
    page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
    button.click()
    expect(page.get_by_role("img", name="camera.jpg")).to_be_visible()
    expect(page.locator("#digit")).not_to_be_empty()  # the test pattern is no digit, but it is read
    expect(page.locator("#video")).to_be_hidden()


@in_browser
def test_a_broken_file_is_told_and_forgotten(browser: Browser, server: Server, tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes((SAMPLES / "7.png").read_bytes()[:60])
    with visiting(browser, server.url, refusals=True) as page:
        page.locator("#files").set_input_files(broken)
        alert = page.get_by_role("alert")
        expect(alert).to_have_text(
            "The image can't be decoded: the PNG image is truncated or broken."
        )
        expect(page.locator("#digit")).to_be_empty()
        page.get_by_role("button", name="Sample of a 9").click()
        expect_digit(page, 9)
        expect(alert).to_be_hidden()


@in_browser
def test_several_files_make_a_gallery_and_a_csv(
    browser: Browser, strict_server: Server, tmp_path: Path
):
    for digit in range(5):
        shutil.copy(SAMPLES / f"{digit}.png", tmp_path / f"{digit}.png")
    (tmp_path / '=5,"x".png').write_bytes(b"GIF89a")
    (tmp_path / "6.png").write_bytes(bytes(20_000))
    files = sorted(tmp_path.iterdir(), key=lambda path: path.name.lstrip("="))
    with visiting(browser, strict_server.url, refusals=True, state="locked") as page:
        page.get_by_label("API key").fill("open-sesame")
        page.get_by_label("API key").press("Enter")
        expect(page.locator("#state")).to_have_attribute("data-state", "ready")
        page.locator("#files").set_input_files(files)
        expect(page.locator("#gallery-state")).to_have_text("5 of 7 read, 2 could not be read")
        expect(page.locator("#cards b")).to_have_text(["0", "1", "2", "3", "4", "✕", "✕"])
        with page.expect_download() as download:
            page.get_by_role("button", name="Download CSV").click()
        rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
        assert [row["label"] for row in rows] == ["0", "1", "2", "3", "4", "", ""]
        assert [row["file"] for row in rows[-2:]] == ['\'=5,"x".png', "6.png"]
        assert float(rows[3]["p_3"]) == float(rows[3]["confidence"]) > 0.9
        assert rows[3]["recognized"] == "true"
        assert 0 <= float(rows[3]["novelty"]) < 0.5
        assert "truncated or broken" in rows[5]["error"]
        assert "10000 bytes" in rows[6]["error"]
        page.get_by_role("button", name="Doubtful first").click()
        expect(page.locator("#cards b").first).to_have_text("✕")
        page.get_by_role("button", name="3.png").click()
        expect_digit(page, 3)


@in_browser
def test_a_service_that_restarts_is_waited_for(browser: Browser, strokes):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with serving("--port", port) as first, visiting(browser, first.url, refusals=True) as page:
        draw(page, strokes[7])
        expect_digit(page, 7)
        first.stop()
        page.get_by_role("button", name="Clear").click()
        draw(page, strokes[8])
        expect(page.get_by_role("status").first).to_contain_text("trying again")
        with serving("--port", port):
            expect_digit(page, 8)
            expect(page.locator("#state")).to_have_attribute("data-state", "ready")


@in_browser
def test_asks_for_the_api_key_of_a_service_that_wants_one(browser: Browser, strict_server: Server):
    with visiting(browser, strict_server.url, refusals=True, state="locked") as page:
        field = page.get_by_label("API key")
        field.fill("wrong")
        field.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("does not accept")
        field.fill("open-sesame")
        field.press("Enter")
        expect(field).to_be_hidden()
        page.get_by_role("button", name="Sample of a 3").click()
        expect_digit(page, 3)
        expect(page.get_by_role("alert")).to_be_hidden()
        assert "open-sesame" not in page.locator("#snippet").text_content()
        page.reload()  # nothing keeps it
        expect(field).to_be_visible()


@in_browser
@pytest.mark.parametrize("drawn", [True, False])
def test_the_snippets_make_this_very_request(drawn: bool, page: Page, strokes, tmp_path: Path):
    if drawn:
        draw(page, strokes[5])
    else:
        shutil.copy(SAMPLES / "5.png", tmp_path / "it's 5.png")
        page.locator("#files").set_input_files(tmp_path / "it's 5.png")
    expect_digit(page, 5)
    shown = float(page.locator("#detail").inner_text().split()[0])

    def answer(command: list[str]) -> dict:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=True
        )
        return result.stdout

    curl = json.loads(answer(["bash", "-c", page.locator("#snippet").text_content()]))
    assert curl["digit"] == 5
    assert 100 * curl["confidence"] == pytest.approx(shown, abs=0.06)
    page.get_by_role("tab", name="curl").press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_have_attribute("aria-selected", "true")
    code = page.locator("#snippet").text_content()
    assert answer([sys.executable, "-c", code]).strip() == str(curl)


@in_browser
def test_fits_every_width_and_axe_finds_no_violation(browser: Browser, server: Server):
    axe = Axe()
    with visiting(browser, server.url, reduced_motion="reduce", bypass_csp=True) as page:
        assert not axe.run(page).response["violations"]
        page.locator("#files").set_input_files([SAMPLES / f"{digit}.png" for digit in range(10)])
        expect(page.locator("#gallery-state")).to_have_text("10 of 10 read")
        page.get_by_role("button", name="Sample of a 7").click()
        expect_digit(page, 7)
        expect(page.locator("#sight")).to_be_visible()
        for width in (1920, 768, 390, 320):
            page.set_viewport_size({"width": width, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not axe.run(page).response["violations"]
        page.emulate_media(color_scheme="dark")
        colours = {"runOnly": ["color-contrast"]}
        assert not axe.run(page, options=colours).response["violations"]


def test_page_is_small_local_and_revalidated(client: httpx.Client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    links = set(re.findall(r'(?:src|href)="([^"#]+)', page.text))
    assert "docs" in links
    files = [path for path in (ROOT / "app/web").rglob("*") if path.is_file()]
    modules = {path.relative_to(ROOT / "app").as_posix() for path in files if path.suffix == ".js"}
    for link in links | modules:
        answer = client.get(link)
        assert answer.status_code == 200
        if link.startswith("web/"):
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.headers["vary"] == "Accept-Encoding"
            known = {"If-None-Match": f'W/"x", {answer.headers["etag"]}'}
            assert client.get(link, headers=known).status_code == 304
            plain = client.get(link, headers={"Accept-Encoding": "gzip;q=0"})
            assert "content-encoding" not in plain.headers
            assert plain.content == answer.content
            assert plain.headers["etag"] != answer.headers["etag"]
    assert client.head("/").headers["content-length"] == page.headers["content-length"]
    for path in ("/web/../settings.py", "/web/%2e%2e/settings.py", "/web//etc/passwd", "/web/"):
        assert client.get(path).json()["type"] == "/problems/not-found"
    assert sum(path.stat().st_size for path in files) < BUDGET


@in_browser
@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="make screenshots takes them")
@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [
        ("page-light", 1180, 780, "light"),
        ("page-dark", 1180, 780, "dark"),
        ("page-phone", 390, 844, "light"),
    ],
)
def test_screenshots(
    name: str, width: int, height: int, scheme: str, browser: Browser, server: Server, strokes
):
    """Takes the README's pictures of the page into the folder that $SCREENSHOTS names."""
    look = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    look |= {"device_scale_factor": 2, "reduced_motion": "no-preference"}
    with visiting(browser, server.url, **look) as page:
        draw(page, strokes[5])
        expect_digit(page, 5)
        expect(page.locator("#sight")).to_be_visible()
        page.mouse.move(0, 0)
        page.wait_for_function("() => !document.getAnimations().length")
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    small = picture.quantize(256, Image.Quantize.MAXCOVERAGE, 2, dither=Image.Dither.NONE)
    file = Path(os.environ["SCREENSHOTS"], f"{name}.png")
    small.save(file, optimize=True)
    assert file.stat().st_size < 150_000
