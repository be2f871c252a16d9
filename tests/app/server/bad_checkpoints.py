"""Checkpoints that are wrong in one way each, under digests that are right."""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.settings import Settings
from tests.conftest import ROOT

SHIPPED = ROOT / Settings().weights
CLASSES = 10


def write(
    folder: Path,
    files: Mapping[str, bytes] | None = None,
    edit: Callable[[dict], object] = lambda card: None,
) -> None:
    """The shipped checkpoint with other files and an edited card."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SHIPPED, folder)
    card = json.loads((folder / "card.json").read_text())
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
        card["files"][name] = hashlib.sha256(content).hexdigest()
    card["version"] = "9.9.9"
    edit(card)
    (folder / "card.json").write_text(json.dumps(card))


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(SHIPPED / name) as stored:
        return dict(stored)


def npz(stored: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **stored)
    return file.getvalue()


def graph(
    name: str = "image",
    nodes: tuple[onnx.NodeProto, ...] = (),
    constants: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """A model that classifies by the mean light "mean", or by the "made" that the nodes make."""
    made = "made" if nodes else "mean"
    weights = np.ones((1, CLASSES), np.float32)
    constants = {"axis": np.array([1]), "weights": weights, **(constants or {})}
    axes = {"axes": [1, 2, 3], "keepdims": 0}
    inputs = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["b", 1, 28, 28])]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", CLASSES]),
        helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["b"]),
    ]
    body = [
        helper.make_node("Cast", [name], ["light"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["light"], ["mean"], **axes),
        *nodes,
        helper.make_node("Identity", [made], ["novelty"]),
        helper.make_node("Unsqueeze", [made, "axis"], ["column"]),
        helper.make_node("MatMul", ["column", "weights"], ["logits"]),
    ]
    stored = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    whole = helper.make_graph(body, "graph", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=9).SerializeToString()


def endless_graph() -> bytes:
    """Loops without end."""
    value = helper.make_tensor_value_info
    step = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sin", ["x"], ["next"]),
        ],
        "step",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("x", TensorProto.FLOAT, ["b"]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, ["b"])],
    )
    loop = helper.make_node("Loop", ["", "true", "mean"], ["made"], body=step)
    return graph(nodes=(loop,), constants={"true": np.array(True)})


def large_graph(gigabytes: int = 6) -> bytes:
    """Takes so many gigabytes to compute."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = (
        helper.make_node("ConstantOfShape", ["shape"], ["large"], value=one),
        helper.make_node("Sin", ["large"], ["sines"]),
        helper.make_node("ReduceMean", ["sines"], ["factor"], axes=[0], keepdims=0),
        helper.make_node("Mul", ["mean", "factor"], ["made"]),
    )
    return graph(nodes=nodes, constants={"shape": np.array([gigabytes * 2**28])})


def nan_graph() -> bytes:
    multiply = helper.make_node("Mul", ["mean", "nan"], ["made"])
    return graph(nodes=(multiply,), constants={"nan": np.array(np.nan, np.float32)})


def zeroed_weights() -> bytes:
    content = (SHIPPED / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    return content[:start] + bytes(len(content) - start)


def fewer_classes(card: dict) -> None:
    card["labels"].pop()
    card["model"]["num_features"] -= 1


def other_modality(card: dict) -> None:
    card["inputs"][0]["modality"] = "volume"


def impossible_name(card: dict) -> None:
    card["files"]["parts/a\0b"] = "0" * 64


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Puts what `make` makes in the place of one file."""

    def damage(folder: Path) -> None:
        write(folder)
        (folder / name).unlink()
        make(folder / name)

    return damage


def files(**contents: Callable[[], bytes]) -> Callable[[Path], None]:
    """Other content for files, by their names with `_` for the dot and without a folder."""
    names = {path.name.replace(".", "_"): path for path in SHIPPED.rglob("*") if path.is_file()}
    return lambda folder: write(
        folder,
        {str(names[key].relative_to(SHIPPED)): make() for key, make in contents.items()},
    )


def self_check(**changed: np.ndarray) -> Callable[[Path], None]:
    return files(selfcheck_npz=lambda: npz({**arrays("selfcheck.npz"), **changed}))


def garbage() -> bytes:
    return b"garbage"


# What is wrong -> what makes a folder of it, and a word of the sentence that tells.
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "self-check: garbage": (files(selfcheck_npz=garbage), "selfcheck.npz"),
    "self-check: truncated": (
        files(selfcheck_npz=lambda: (SHIPPED / "selfcheck.npz").read_bytes()[:-900]),
        "selfcheck.npz",
    ),
    "self-check: without samples": (
        self_check(
            **{"input.image": np.zeros((0, 1, 28, 28), np.uint8)},
            logits=np.zeros((0, CLASSES), np.float32),
            novelty=np.zeros(0, np.float32),
        ),
        "selfcheck.npz",
    ),
    "self-check: objects": (self_check(logits=np.array([{}], object)), "selfcheck.npz"),
    "self-check: one row for all": (
        self_check(logits=np.zeros((1, CLASSES), np.float32)),
        "selfcheck.npz",
    ),
    "self-check: not a number": (
        self_check(logits=np.full((6, CLASSES), np.nan, np.float32)),
        "logits",
    ),
    "card: fewer classes": (lambda folder: write(folder, edit=fewer_classes), "selfcheck.npz"),
    "card: other modality": (lambda folder: write(folder, edit=other_modality), "volume"),
    "card: impossible name": (lambda folder: write(folder, edit=impossible_name), "cannot read"),
    "card: pipe": (replaced("card.json", os.mkfifo), "no regular file"),
    "card: folder": (replaced("card.json", Path.mkdir), "no regular file"),
    "card: device": (replaced("card.json", lambda p: p.symlink_to("/dev/zero")), "no regular"),
    "card: nested": (replaced("card.json", lambda p: p.write_text("[" * 10**6)), "valid card"),
    "graph: pipe": (replaced("model.onnx", os.mkfifo), "no regular file"),
    "graph: enormous": (
        replaced("model.onnx", lambda p: (p.touch(), os.truncate(p, 5 * 2**30))),
        "larger",
    ),
    "graph: other input": (files(model_onnx=lambda: graph(name="picture")), "picture"),
    "graph: other model": (files(model_onnx=graph), "off by"),
    "graph: not a number": (files(model_onnx=nan_graph), "off by nan"),
    "graph: gigabytes": (files(model_onnx=large_graph), "self-check"),
    "explain: garbage": (files(explain_onnx=garbage), "/explain"),
    "explain: other graph": (files(explain_onnx=graph), "/explain"),
    "weights: garbage": (files(model_safetensors=garbage), "/explain"),
    "weights: zeros": (files(model_safetensors=zeroed_weights), "/explain"),
    "parts: garbage": (files(judge_npz=garbage), "judge.npz"),
    "parts: other shapes": (
        files(
            judge_npz=lambda: npz({key: np.zeros(3) for key in arrays("parts/judge.npz")}),
        ),
        "/read",
    ),
}
