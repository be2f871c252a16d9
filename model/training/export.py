"""Perceiver -> ONNX that takes an input's values, with a proof that it computes the same."""

import io
import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from model.checkpoint.card import InputSpec
from model.checkpoint.folder import (
    EXPLAIN_FILE,
    ONNX_FILE,
    SELF_CHECK_FILE,
    SELF_CHECK_PREFIX,
    WEIGHTS_FILE,
    explain_weights,
    read_checkpoint,
    read_files,
    write_checkpoint,
)
from model.errors import UserError
from model.network.recognizer import (
    InputClassifier,
    InputExplainer,
    Recognizer,
    folded,
    load_recognizer,
    pack_weights,
    plain_classifier,
)

OPSET = 20
# Largest difference between outputs of PyTorch and ONNX Runtime that counts as the same model.
PARITY_TOLERANCE = 1e-4


class ExportError(UserError):
    """The exported graph does not compute what the model computes."""


def exported_files(recognizer: Recognizer) -> dict[str, bytes]:
    """All files of a checkpoint that come of its weights, by name; model.safetensors is one.

    Raises:
        ExportError: see `export_onnx` and `export_explain_onnx`.
    """
    weights = pack_weights(recognizer)
    return {
        WEIGHTS_FILE: weights,
        ONNX_FILE: export_onnx(recognizer),
        EXPLAIN_FILE: export_explain_onnx(plain_classifier(recognizer), weights),
        SELF_CHECK_FILE: self_check(recognizer),
    }


def self_check(recognizer: Recognizer) -> bytes:
    """Inputs and what the recognizer makes of them, which each engine must meet at its start.

    An .npz of `input.NAME` (B, C, *shape), `logits` float32 (B, classes), `novelty` float32 (B,):
    noise from sparse to dense, a step, and nothing at all.
    """
    spec = plain_classifier(recognizer).spec
    shape = spec.array_shape
    generator = np.random.default_rng(0)
    samples: list[NDArray[Any]] = [
        generator.integers(0, 256, shape) * (generator.random(shape) < share)
        for share in (0.02, 0.1, 0.3, 1.0)
    ]
    samples += [np.arange(math.prod(shape)).reshape(shape) % 256, np.zeros(shape)]
    values = _values(np.stack(samples), spec)
    with torch.inference_mode():
        logits, novelty = recognizer(torch.from_numpy(values))
    file = io.BytesIO()
    arrays: dict[str, Any] = {
        f"{SELF_CHECK_PREFIX}{spec.name}": values,
        "logits": logits.numpy(),
        "novelty": novelty.numpy(),
    }
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def export_onnx(recognizer: Recognizer) -> bytes:
    """An ONNX model of a recognizer in evaluation mode, for any batch size.

    The input's name, (batch, C, *shape) -> `logits` float32 (batch, classes), `novelty` float32
    (batch).

    Raises:
        ExportError: ONNX Runtime's outputs differ from PyTorch's by more than `PARITY_TOLERANCE`.
    """
    spec = plain_classifier(recognizer).spec
    values = _noise(spec)
    model = _onnx_model(folded(recognizer), spec.name, values, ["logits", "novelty"])
    content = bytes(model.SerializeToString())
    _check("outputs of the ONNX graph", parity(recognizer, content, values))
    return content


def export_explain_onnx(classifier: InputClassifier, weights: bytes) -> bytes:
    """The graph that tells, beside the logits, where each block's latents looked.

    The input's name, (batch, C, *shape) -> `logits` float32 (batch, classes) and `attention`
    float32 (batch, depth, heads, latents, *token grid). It is small, for it shares the learned
    arrays of model.safetensors: a session is given them by `explain_weights`.

    Raises:
        ExportError: ONNX Runtime's answers differ from PyTorch's by more than `PARITY_TOLERANCE`.
    """
    explainer = InputExplainer(classifier).eval()
    spec = classifier.spec
    values = _noise(spec)
    outputs = ["logits", "attention"]
    # Not optimised: that would fold the weights into constants of other shapes and names.
    model = _onnx_model(explainer, spec.name, values, outputs, optimize=False)
    arrays = explain_weights(weights)
    for initializer in model.graph.initializer:
        if initializer.name in arrays:
            initializer.ClearField("raw_data")
            initializer.data_location = initializer.EXTERNAL
            initializer.external_data.add(key="location", value=WEIGHTS_FILE)
    content = bytes(model.SerializeToString())

    options = onnxruntime.SessionOptions()
    options.add_external_initializers(
        list(arrays), [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in arrays.values()]
    )
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    actual = session.run(outputs, {spec.name: values})
    with torch.inference_mode():
        expected = explainer(torch.from_numpy(values))
    for name, ours, theirs in zip(outputs, actual, expected, strict=True):
        difference = float(np.abs(ours - theirs.numpy()).max())
        _check(f"{name} of the ONNX graph that explains", difference)
    return content


def parity(recognizer: Recognizer, onnx: bytes, values: NDArray[Any]) -> float:
    """Largest absolute difference between the outputs of PyTorch and of ONNX Runtime."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    name = plain_classifier(recognizer).spec.name
    actual = session.run(["logits", "novelty"], {name: values})
    with torch.inference_mode():
        expected = recognizer(torch.from_numpy(values))
    return max(
        float(np.abs(ours - theirs.numpy()).max())
        for ours, theirs in zip(actual, expected, strict=True)
    )


def _check(what: str, difference: float) -> None:
    if not difference <= PARITY_TOLERANCE:
        raise ExportError(f"{what} are off by {difference:.2e}, more than {PARITY_TOLERANCE}")


def _noise(spec: InputSpec) -> NDArray[Any]:
    return _values(np.random.default_rng(0).integers(0, 256, (3, *spec.array_shape)), spec)


def _values(bytes_: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Values from 0 to 255 as an input takes them."""
    return (bytes_ * (spec.unit / 255)).astype(spec.dtype)


def _onnx_model(
    module: nn.Module, name: str, values: NDArray[Any], outputs: list[str], *, optimize: bool = True
) -> Any:
    """A graph of any batch size as an `onnx.ModelProto`, without the exporter's notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for exporter in ("onnxscript", "torch.onnx"):
            logging.getLogger(exporter).setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            (torch.from_numpy(values),),
            input_names=[name],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=optimize,
        )
    assert program is not None
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node):
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    return model


def export(folder: Path) -> Mapping[str, bytes]:
    """Makes a checkpoint's graphs anew from its weights; the card's figures stay.

    Returns: all files of the checkpoint, by name.

    Raises:
        CheckpointError: the folder is no usable checkpoint.
        ExportError: see `export_onnx` and `export_explain_onnx`.
    """
    checkpoint = read_checkpoint(folder)
    files = read_files(checkpoint) | exported_files(load_recognizer(checkpoint))
    write_checkpoint(folder, checkpoint.card, files)
    return files
