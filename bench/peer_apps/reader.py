"""The same checkpoint, decoding and answer in every peer; only the server differs."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint.folder import read_checkpoint
from model.modalities.digits.form import prepare

WEIGHTS = Path(__file__).parents[2] / "weights/perceiver-mnist"
MAX_BATCH = 16


class Reader:
    """The model by eager PyTorch, or by ONNX Runtime where RUNTIME=onnxruntime says so."""

    def __init__(self) -> None:
        checkpoint = read_checkpoint(WEIGHTS)
        self._card, self.spec = checkpoint.card, checkpoint.card.input
        if os.environ.get("RUNTIME") == "onnxruntime":
            import onnxruntime

            session = onnxruntime.InferenceSession(checkpoint.onnx)
            self._logits = lambda images: session.run(["logits"], {"images": images})[0]
        else:
            import torch

            from model.network.recognizer import load_perceiver

            model = load_perceiver(checkpoint)
            spec = self.spec

            @torch.inference_mode()
            def logits(images: NDArray[np.uint8]) -> NDArray[np.float32]:
                pixels = torch.from_numpy(images).float() / 255
                return model((pixels - spec.mean) / spec.std).numpy()

            self._logits = logits

    def pixels(self, content: bytes) -> NDArray[np.uint8]:
        """A picture -> (1, 28, 28)."""
        return prepare(Image.open(io.BytesIO(content)), self.spec)

    def read(self, images: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """(B, 1, 28, 28) -> an answer for each."""
        rows = self._card.calibration.probabilities(self._logits(images))
        return [
            {
                "label": self._card.labels[int(row.argmax())],
                "confidence": float(row.max()),
                "probabilities": row.tolist(),
            }
            for row in rows
        ]
