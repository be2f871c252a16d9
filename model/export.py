"""Perceiver -> ONNX that takes uint8 pixels, with a proof that it computes the same."""

import logging
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import Preprocessing
from model.perceiver import Perceiver

OPSET = 20
# Largest difference between the logits of PyTorch and ONNX Runtime that counts as the same model.
PARITY_TOLERANCE = 1e-4


class ExportError(Exception):
    """The exported graph does not compute what the model computes."""


class PixelClassifier(nn.Module):
    """A Perceiver behind its normalisation: what an engine runs."""

    def __init__(self, perceiver: Perceiver, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.perceiver = perceiver
        self.scale = 1 / (255 * preprocessing.std)
        self.offset = -preprocessing.mean / preprocessing.std

    def forward(self, images: Tensor) -> Tensor:
        """Pixels (B, C, H, W), uint8 or float in [0, 255] -> logits (B, classes)."""
        logits: Tensor = self.perceiver(self.normalise(images))
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels -> the Perceiver's input, float32 of the same shape."""
        return images.float() * self.scale + self.offset


def export_onnx(perceiver: Perceiver, preprocessing: Preprocessing) -> bytes:
    """An ONNX model: `images` uint8 (batch, C, H, W) -> `logits` float32 (batch, classes).

    Raises:
        ExportError: ONNX Runtime's logits differ from PyTorch's by more than `PARITY_TOLERANCE`.
    """
    classifier = PixelClassifier(perceiver, preprocessing).eval()
    shape = (perceiver.num_channels, *perceiver.input_shape)
    pixels = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for exporter in ("onnxscript", "torch.onnx"):
            logging.getLogger(exporter).setLevel(logging.ERROR)
        program = torch.onnx.export(
            classifier,
            (pixels,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content = bytes(program.model_proto.SerializeToString())
    difference = parity(classifier, content, pixels.numpy())
    if not difference <= PARITY_TOLERANCE:
        raise ExportError(
            f"logits of the ONNX graph are off by {difference:.2e}, more than {PARITY_TOLERANCE}"
        )
    return content


def parity(classifier: PixelClassifier, onnx: bytes, images: NDArray[np.uint8]) -> float:
    """Largest absolute difference between the logits of PyTorch and of ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (actual,) = session.run(["logits"], {"images": images})
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(images)).numpy()
    return float(np.abs(actual - expected).max())
