"""Perceiver -> ONNX that takes uint8 pixels, with a proof that it computes the same.

`python -m model.training.export weights/perceiver-mnist` makes a checkpoint's graphs anew from its weights.
"""

import argparse
import io
import logging
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.checkpoint.folder import (
    EXPLAIN_FILE,
    ONNX_FILE,
    SELF_CHECK_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    explain_weights,
    read_checkpoint,
    read_files,
    write_checkpoint,
)
from model.network.perceiver import Perceiver
from model.network.recognizer import (
    PixelClassifier,
    PixelExplainer,
    Recognizer,
    folded,
    load_recognizer,
    pack_weights,
    plain_classifier,
)

OPSET = 20
# Largest difference between outputs of PyTorch and ONNX Runtime that counts as the same model.
PARITY_TOLERANCE = 1e-4


class ExportError(Exception):
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
    """Images and what the recognizer makes of them, which each engine must meet at its start.

    An .npz of `images` uint8 (B, C, H, W), `logits` float32 (B, classes), `novelty` float32 (B,):
    noise from sparse to dense, a step, and nothing at all.
    """
    perceiver = plain_classifier(recognizer).perceiver
    shape = (perceiver.num_channels, *perceiver.input_shape)
    generator = np.random.default_rng(0)
    images: list[NDArray[Any]] = [
        generator.integers(0, 256, shape) * (generator.random(shape) < share)
        for share in (0.02, 0.1, 0.3, 1.0)
    ]
    images += [np.arange(math.prod(shape)).reshape(shape) % 256, np.zeros(shape)]
    pixels = np.stack(images).astype(np.uint8)
    with torch.inference_mode():
        logits, novelty = recognizer(torch.from_numpy(pixels))
    file = io.BytesIO()
    np.savez_compressed(file, images=pixels, logits=logits.numpy(), novelty=novelty.numpy())
    return file.getvalue()


def export_onnx(recognizer: Recognizer) -> bytes:
    """An ONNX model of a recognizer in evaluation mode, for any batch size.

    `images` uint8 (batch, C, H, W) -> `logits` float32 (batch, classes), `novelty` float32 (batch).

    Raises:
        ExportError: ONNX Runtime's outputs differ from PyTorch's by more than `PARITY_TOLERANCE`.
    """
    pixels = _random_pixels(plain_classifier(recognizer).perceiver)
    content = bytes(
        _onnx_model(folded(recognizer), pixels, ["logits", "novelty"]).SerializeToString()
    )
    _check("outputs of the ONNX graph", parity(recognizer, content, pixels.numpy()))
    return content


def export_explain_onnx(classifier: PixelClassifier, weights: bytes) -> bytes:
    """The graph that tells, beside the logits, where each block's latents looked.

    `images` uint8 (batch, C, H, W) -> `logits` float32 (batch, classes) and `attention` float32
    (batch, depth, heads, latents, *token grid). It is small, for it shares the learned arrays of
    model.safetensors: a session is given them by `model.checkpoint.explain_weights`.

    Args:
        weights: the content of model.safetensors.

    Raises:
        ExportError: ONNX Runtime's answers differ from PyTorch's by more than `PARITY_TOLERANCE`.
    """
    explainer = PixelExplainer(classifier).eval()
    pixels = _random_pixels(classifier.perceiver)
    outputs = ["logits", "attention"]
    # Not optimised: that would fold the weights into constants of other shapes and names.
    model = _onnx_model(explainer, pixels, outputs, optimize=False)
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
    actual = session.run(outputs, {"images": pixels.numpy()})
    with torch.inference_mode():
        expected = explainer(pixels)
    for name, ours, theirs in zip(outputs, actual, expected, strict=True):
        difference = float(np.abs(ours - theirs.numpy()).max())
        _check(f"{name} of the ONNX graph that explains", difference)
    return content


def parity(recognizer: Recognizer, onnx: bytes, images: NDArray[np.uint8]) -> float:
    """Largest absolute difference between the outputs of PyTorch and of ONNX Runtime."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    actual = session.run(["logits", "novelty"], {"images": images})
    with torch.inference_mode():
        expected = recognizer(torch.from_numpy(images))
    return max(
        float(np.abs(ours - theirs.numpy()).max())
        for ours, theirs in zip(actual, expected, strict=True)
    )


def _check(what: str, difference: float) -> None:
    if not difference <= PARITY_TOLERANCE:
        raise ExportError(f"{what} are off by {difference:.2e}, more than {PARITY_TOLERANCE}")


def _random_pixels(perceiver: Perceiver) -> Tensor:
    shape = (3, perceiver.num_channels, *perceiver.input_shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def _onnx_model(
    module: nn.Module, pixels: Tensor, outputs: list[str], *, optimize: bool = True
) -> Any:
    """A graph of any batch size as an `onnx.ModelProto`, without the exporter's notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for exporter in ("onnxscript", "torch.onnx"):
            logging.getLogger(exporter).setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            (pixels,),
            input_names=["images"],
            output_names=outputs,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, or 2 where the checkpoint can't be read or its graphs be made."""
    parser = argparse.ArgumentParser(
        prog="python -m model.training.export",
        description="Makes a checkpoint's ONNX graphs anew from its weights.",
    )
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    folder = parser.parse_args(argv).checkpoint
    try:
        checkpoint = read_checkpoint(folder)
        files = read_files(checkpoint) | exported_files(load_recognizer(checkpoint))
        write_checkpoint(folder, checkpoint.card, files)
    except (CheckpointError, ExportError) as error:
        print(f"model.training.export: {error}", file=sys.stderr)
        return 2
    for name in (ONNX_FILE, EXPLAIN_FILE):
        print(f"{len(files[name]):>10,} bytes  {folder / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
