"""The `perceiver` command as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.digits import load_digits

PERCEIVER = Path(sys.executable).with_name("perceiver")


def perceiver(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(PERCEIVER), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_predict_reads_files_without_a_server(tmp_path: Path):
    images, labels = load_digits()
    paths = []
    for index in range(20):
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(images[index]).save(paths[-1])
    result = perceiver("predict", *paths)
    assert result.returncode == 0, result.stderr
    read = [line.split()[0] for line in result.stdout.splitlines()]
    right = sum(digit == str(label) for digit, label in zip(read, labels, strict=False))
    assert right >= 19
    assert all(path in line for path, line in zip(paths, result.stdout.splitlines(), strict=True))


def test_predict_says_which_file_cannot_be_read(tmp_path: Path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    result = perceiver("predict", "app/samples/7.png", str(text), str(tmp_path / "absent.png"))
    assert result.returncode == 1
    assert result.stdout.startswith("7 ")
    assert f"{text}: the image is of none of the types read" in result.stderr
    assert "absent.png: " in result.stderr
    assert "Traceback" not in result.stderr


def test_predict_without_a_checkpoint_is_a_sentence(tmp_path: Path):
    result = perceiver("predict", "--weights", str(tmp_path / "none"), "app/samples/7.png")
    assert result.returncode == 2
    assert "no checkpoint folder" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["serve", "predict", "train", "evaluate"])
def test_each_command_explains_itself(command: str):
    result = perceiver(command, "--help")
    assert result.returncode == 0
    assert f"usage: perceiver {command}" in result.stdout
    assert command in perceiver("--help").stdout


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
