"""Checkpoint folders: whole or not at all, and refused when anything in them is off."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest
import torch

from model.checkpoint.folder import (
    CARD_FILE,
    ONNX_FILE,
    SELF_CHECK_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    read_checkpoint,
    write_checkpoint,
)
from model.network.recognizer import load_perceiver
from tests.conftest import ROOT

SHIPPED = ROOT / "weights/perceiver-mnist"
SPEC = read_checkpoint(SHIPPED).card.input.model_dump(mode="json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small checkpoint of arbitrary bytes."""
    card = read_checkpoint(SHIPPED).card
    path = tmp_path / "weights/some"
    write_checkpoint(path, card, {**files(b"weights", b"graph"), "a/b.png": b"png"})
    return path


def files(weights: bytes, graph: bytes) -> dict[str, bytes]:
    """What no checkpoint is without."""
    return {WEIGHTS_FILE: weights, ONNX_FILE: graph, SELF_CHECK_FILE: b"check"}


def test_round_trip(folder: Path):
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.weights, checkpoint.onnx) == (b"weights", b"graph")
    assert (folder / "a/b.png").read_bytes() == b"png"
    assert set(checkpoint.card.files) == {WEIGHTS_FILE, ONNX_FILE, SELF_CHECK_FILE, "a/b.png"}
    assert [p.name for p in folder.parent.iterdir()] == ["some"]  # nothing left behind


def test_parts_are_read_and_their_digests_hold(folder: Path):
    assert read_checkpoint(folder).parts == {}
    card = read_checkpoint(folder).card
    write_checkpoint(folder, card, {**files(b"w", b"g"), "parts/judge.npz": b"learned"})
    assert read_checkpoint(folder).parts == {"judge.npz": b"learned"}
    (folder / "parts/judge.npz").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"parts/judge\.npz is damaged or was changed"):
        read_checkpoint(folder)


def test_shipped_checkpoint_loads_and_is_small():
    perceiver = load_perceiver(read_checkpoint(SHIPPED))
    assert perceiver(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    assert sum(f.stat().st_size for f in SHIPPED.rglob("*") if f.is_file()) < 10_000_000


@pytest.mark.parametrize("name", [WEIGHTS_FILE, ONNX_FILE])
@pytest.mark.parametrize("damage", [b"", b"weight", b"weights and more"])
def test_changed_file_is_refused_by_name(folder: Path, name: str, damage: bytes):
    (folder / name).write_bytes(damage)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged or was changed"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, ONNX_FILE, SELF_CHECK_FILE, CARD_FILE])
def test_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        read_checkpoint(folder)


def test_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no checkpoint folder .*/nowhere"):
        read_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": ["0", "1"]}, "2 labels for a model of 10 classes"),
        ({"calibration": {"temperature": -1}}, "temperature"),
        ({"version": "one"}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [dict(SPEC, shape=[28, 27])]}, "input image is .* the model takes"),
        ({"inputs": [dict(SPEC, dtype="float16")]}, "dtype"),
        ({"files": {}}, f"no SHA-256 for {WEIGHTS_FILE}"),
    ],
)
def test_invalid_card_is_explained(folder: Path, change: dict, said: str):
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps({**card, **change}))
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(folder)


def test_card_that_is_no_json_is_refused(folder: Path):
    (folder / CARD_FILE).write_text("{")
    with pytest.raises(CheckpointError, match="not a valid card"):
        read_checkpoint(folder)


def test_weights_of_another_model_are_refused():
    checkpoint = read_checkpoint(SHIPPED)
    config = checkpoint.card.model.model_copy(update={"num_latents": 3})
    card = checkpoint.card.model_copy(update={"model": config})
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_perceiver(dataclasses.replace(checkpoint, card=card))


def test_readers_see_the_old_or_the_new_folder_never_a_half(folder: Path):
    card = read_checkpoint(folder).card
    done = threading.Event()
    seen: set[tuple[str, bytes, bytes]] = set()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                checkpoint = read_checkpoint(folder)
                seen.add((checkpoint.card.version, checkpoint.weights, checkpoint.onnx))
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    written = {(card.version, b"weights", b"graph")}
    for number in range(100):
        version, content = f"2.0.{number}", str(number).encode()
        fresh = card.model_copy(update={"version": version})
        write_checkpoint(folder, fresh, files(content, content + b"g"))
        written.add((version, content, content + b"g"))
    done.set()
    reader.join()
    assert not failures
    assert seen <= written
    assert [p.name for p in folder.parent.iterdir()] == ["some"]


def test_failed_write_leaves_the_former_folder(folder: Path):
    before = read_checkpoint(folder)
    with pytest.raises(OSError, match="x" * 300):
        write_checkpoint(folder, before.card, {**files(b"new", b"new"), "x" * 300: b""})
    assert read_checkpoint(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["some"]


def test_what_is_no_checkpoint_is_never_replaced(folder: Path, tmp_path: Path):
    card = read_checkpoint(folder).card
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for target in (precious, precious / "thesis.txt"):
        with pytest.raises(CheckpointError, match="not replaced"):
            write_checkpoint(target, card, files(b"", b""))
    assert (precious / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("weights", [b"", b"no safetensors at all"])
def test_weights_in_another_format_are_refused(weights: bytes):
    checkpoint = dataclasses.replace(read_checkpoint(SHIPPED), weights=weights)
    with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
        load_perceiver(checkpoint)
