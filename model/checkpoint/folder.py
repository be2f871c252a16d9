"""A checkpoint is a folder: model.safetensors, ONNX graphs made from it, card.json and plots.

A folder is written whole or not at all, and read only if every digest in its card holds. Reading
needs neither torch nor the network.
"""

import ctypes
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from model.checkpoint.card import Card
from model.checkpoint.config import validation_sentence
from model.checkpoint.files import read_regular
from model.errors import UserError

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
SELF_CHECK_FILE = "selfcheck.npz"  # inputs, and what an engine must make of them
SELF_CHECK_PREFIX = "input."  # of the inputs' names in there
EXPLAIN_FILE = "explain.onnx"  # tells where the model looks; takes its arrays from WEIGHTS_FILE

PARTS_FOLDER = "parts/"  # what the modality finds the parts of a sample with
NOVELTY_PREFIX = "novelty."  # of the novelty head's arrays in WEIGHTS_FILE

MAX_CARD_BYTES = 2**24
MAX_FILE_BYTES = 2**31  # of any other file: ONNX has no larger ones


class CheckpointError(UserError):
    """The folder holds no usable checkpoint; the message says why."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read into memory, its digests checked."""

    folder: Path
    card: Card
    weights: bytes  # model.safetensors
    onnx: bytes  # model.onnx
    self_check: bytes  # selfcheck.npz
    explain_onnx: bytes | None = None  # explain.onnx; without it there are no explanations
    parts: Mapping[str, bytes] = field(default_factory=dict)  # file name in parts/ -> content


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint folder, whole.

    Raises:
        CheckpointError: the folder or a file is missing, the card is invalid, or a file's SHA-256
            is not the card's.
    """
    while True:
        raw_card = _read(folder, CARD_FILE)
        try:
            card = Card.model_validate_json(raw_card)
        except ValidationError as error:
            raise CheckpointError(
                f"{folder / CARD_FILE} is not a valid card: {validation_sentence(error)}"
            ) from None
        try:
            weights, onnx, self_check = (
                _read_verified(folder, name, card)
                for name in (WEIGHTS_FILE, ONNX_FILE, SELF_CHECK_FILE)
            )
            explains = EXPLAIN_FILE in card.files
            explain_onnx = _read_verified(folder, EXPLAIN_FILE, card) if explains else None
            parts = {
                name.removeprefix(PARTS_FOLDER): _read_verified(folder, name, card)
                for name in card.files
                if name.startswith(PARTS_FOLDER)
            }
        except CheckpointError:
            if _read(folder, CARD_FILE) == raw_card:
                raise
            continue  # the folder was replaced between two reads: read the new one
        return Checkpoint(folder, card, weights, onnx, self_check, explain_onnx, parts)


def read_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """All files of a checkpoint's folder that its card names, by relative path.

    Raises:
        CheckpointError: one is missing, or its SHA-256 is not the card's.
    """
    card = checkpoint.card
    return {name: _read_verified(checkpoint.folder, name, card) for name in card.files}


def explain_weights(weights: bytes) -> dict[str, NDArray[np.float32]]:
    """The learned arrays that a session of explain.onnx needs, under their names in that graph.

    They are views of the content of model.safetensors.
    """
    # https://huggingface.co/docs/safetensors: a length, a JSON header, then the arrays' bytes.
    start = 8 + int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8:start])
    header.pop("__metadata__", None)
    return {
        f"perceiver.{name}": np.frombuffer(
            weights, "<f4", math.prod(entry["shape"]), start + entry["data_offsets"][0]
        ).reshape(entry["shape"])
        for name, entry in header.items()
        if not name.startswith(NOVELTY_PREFIX)
    }


def write_checkpoint(folder: Path, card: Card, files: Mapping[str, bytes]) -> Card:
    """Writes a checkpoint folder, replacing one that is there in a single step.

    Args:
        folder: a reader sees what was there before, or all that is written now.
        card: its `files` are filled in here.
        files: relative path -> content; `model.safetensors` and `model.onnx` among them.

    Returns: the card as written.

    Raises:
        CheckpointError: `folder` holds something else than a checkpoint.
    """
    check_replaceable(folder)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    card = card.model_copy(update={"files": digests})
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        for name, content in {**files, CARD_FILE: text.encode()}.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _put_in_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # the former folder, or what failed to be written
    return card


def check_replaceable(folder: Path) -> None:
    """Makes sure that writing a checkpoint to `folder` destroys nothing but a checkpoint.

    Raises:
        CheckpointError: something else is there.
    """
    if folder.is_dir():
        if any(folder.iterdir()) and not (folder / CARD_FILE).is_file():
            raise CheckpointError(f"{folder} is a folder without {CARD_FILE}: it is not replaced")
    elif folder.exists():
        raise CheckpointError(f"{folder} is a file: it is not replaced")


def _read(folder: Path, name: str) -> bytes:
    try:
        return read_regular(folder / name, MAX_CARD_BYTES if name == CARD_FILE else MAX_FILE_BYTES)
    except FileNotFoundError:
        if not folder.is_dir():
            raise CheckpointError(f"there is no checkpoint folder {folder}") from None
        raise CheckpointError(f"the checkpoint folder {folder} lacks {name}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {folder / name}: {error.strerror}") from None


def _read_verified(folder: Path, name: str, card: Card) -> bytes:
    content = _read(folder, name)
    if name not in card.files:
        raise CheckpointError(f"the card of {folder} holds no SHA-256 for {name}")
    if hashlib.sha256(content).hexdigest() != card.files[name]:
        raise CheckpointError(
            f"{folder / name} is damaged or was changed: its SHA-256 is not the card's"
        )
    return content


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Gives `fresh` the name `folder`; what bore it before bears `fresh`'s."""
    if not folder.exists():
        fresh.rename(folder)
        return
    if _exchange(fresh, folder):
        return
    # Without an exchange in one step (not Linux, or a file system that lacks it): two renames.
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    folder.rename(aside)
    fresh.rename(folder)
    aside.rename(fresh)


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two names in one atomic step by renameat2(2); false where the system can't."""
    at_current_folder, rename_exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    status: int = renameat2(
        at_current_folder, names[0], at_current_folder, names[1], rename_exchange
    )
    return status == 0
