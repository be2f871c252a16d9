"""The `perceiver` command as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT, Server
from tests.digits import load_digits

PERCEIVER = Path(sys.executable).with_name("perceiver")


def perceiver(*arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(PERCEIVER), *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, input=given or b"", timeout=120)
    text = result.stdout.decode(), result.stderr.decode()
    return subprocess.CompletedProcess(command, result.returncode, *text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 digits as images, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "below").mkdir()
    (folder / "notes.txt").write_text("no image")
    for index, image in enumerate(load_digits()[0][:20]):
        Image.fromarray(image).save(folder / ("below" if index == 19 else "") / f"{index:02}.png")
    return folder


def lines(result: subprocess.CompletedProcess[str]) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("how", ["folder", "pattern", "url"])
def test_predict_reads_files_here_and_by_a_service(folder: Path, how: str, server: Server):
    arguments = {
        "folder": [str(folder)],
        "pattern": [str(folder / "**/*.png")],
        "url": ["--url", server.url, str(folder)],
    }[how]
    result = perceiver("predict", *arguments)
    assert result.returncode == 0, result.stderr
    read = {Path(line["image"]).stem: line for line in lines(result)}
    assert len(read) == 20
    labels = load_digits()[1]
    right = [read[f"{index:02}"]["digit"] == labels[index] for index in range(20)]
    assert sum(right) >= 19
    assert len(read["00"]["probabilities"]) == 10
    assert read["00"]["recognized"] is True


def test_predict_reads_standard_input():
    image = (ROOT / "app/samples/7.png").read_bytes()
    for arguments in ([], ["-"]):
        result = perceiver("predict", *arguments, given=image)
        assert result.returncode == 0, result.stderr
        assert lines(result)[0]["digit"] == 7


def test_predict_needs_httpx_only_to_ask_a_service():
    code = (
        "import sys; sys.modules['httpx'] = None; "
        "import app.predict_command as p; sys.exit(p.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "app/samples/7.png"]
    here = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
    assert json.loads(here.stdout)["digit"] == 7
    by_service = subprocess.run(
        [*command, "--url", "http://127.0.0.1:9"], cwd=ROOT, capture_output=True, timeout=120
    )
    assert by_service.returncode == 2
    assert b"pip install httpx" in by_service.stderr


def test_predict_prints_a_table():
    result = perceiver("predict", "--format", "table", "app/samples/7.png", "app/samples/3.png")
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["image", "label", "confidence"]
    assert [row.split()[:2] for row in rows] == [
        ["app/samples/7.png", "7"],
        ["app/samples/3.png", "3"],
    ]


@pytest.mark.parametrize("by_service", [False, True])
def test_predict_says_which_file_cannot_be_read(tmp_path: Path, by_service: bool, server: Server):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    where = ["--url", server.url] if by_service else []
    absent = str(tmp_path / "absent.png")
    result = perceiver("predict", *where, "app/samples/7.png", str(text), absent)
    assert result.returncode == 1
    seven, unreadable, missing = lines(result)
    assert seven["digit"] == 7
    assert "none of the types read" in unreadable["error"]
    assert missing["error"] == "No such file or directory"
    assert f"{text}: " in result.stderr
    assert "absent.png: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--url", "http://127.0.0.1:9", "app/samples/7.png"], 3, "127.0.0.1:9"),
        (["deploy"], 2, "no images"),
        (["nowhere/*.png"], 2, "no file matches"),
        (["--url", "http://127.0.0.1:9", "--weights", "x", "app/samples/7.png"], 2, "--weights"),
    ],
)
def test_predict_tells_why_it_reads_nothing(arguments: list[str], code: int, told: str):
    result = perceiver("predict", *arguments)
    assert result.returncode == code
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_predict_without_a_checkpoint_is_a_sentence(tmp_path: Path):
    result = perceiver("predict", "--weights", str(tmp_path / "none"), "app/samples/7.png")
    assert result.returncode == 2
    assert "no checkpoint folder" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "command",
    ["serve", "predict", "train", "evaluate", "export", "finish", "fit-parts", "flops"],
)
def test_each_command_explains_itself(command: str):
    result = perceiver(command, "--help")
    assert result.returncode == 0
    assert f"usage: perceiver {command}" in result.stdout
    assert command in perceiver("--help").stdout


def test_a_flag_is_explained_before_anything_heavy_is_imported():
    """Modules that help needs, by the interpreter's own account."""
    code = (
        "from app.cli import main; import sys\ntry: main(['train', '--help'])\nexcept SystemExit: "
    )
    code += "print([name for name in ('torch', 'scipy', 'matplotlib') if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_cost_of_a_checkpoint_is_told():
    result = perceiver("flops", "weights/perceiver-mnist")
    assert result.returncode == 0, result.stderr
    assert "37.0 MFLOP per sample, 1,140,747 parameters" in result.stdout


def test_unknown_command_lists_the_known_ones():
    result = perceiver("fly")
    assert result.returncode == 2
    assert "evaluate" in result.stderr


def test_predict_explains_a_bad_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PERCEIVER_PORT", "abc")
    result = perceiver("predict", "app/samples/7.png")
    assert result.returncode == 2
    assert "port" in result.stderr
    assert "Traceback" not in result.stderr
