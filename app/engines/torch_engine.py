"""PyTorch on the CPU or a CUDA device."""

import numpy as np
import torch
from numpy.typing import NDArray

from app.engines import EngineError, EngineName, Outputs
from model.checkpoint import Checkpoint
from model.export import PixelExplainer, load_recognizer


class TorchEngine:
    """Runs the checkpoint's model.safetensors."""

    name: EngineName = "torch"
    concurrency = 1

    def __init__(self, checkpoint: Checkpoint, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = device
        recognizer = load_recognizer(checkpoint)
        try:
            self._recognizer = recognizer.to(device)
            self._explainer = PixelExplainer(recognizer.classifier).eval()
        except RuntimeError as error:
            raise EngineError(f"PyTorch cannot use the device {device}: {error}") from error

    @torch.inference_mode()
    def compute(self, images: NDArray[np.uint8]) -> Outputs:
        """Pixels (B, C, H, W) -> what the model says of each image."""
        logits, novelty = self._recognizer(torch.from_numpy(images).to(self.device))
        return Outputs(logits.float().cpu().numpy(), novelty.float().cpu().numpy())

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels (B, C, H, W) -> logits (B, classes)."""
        return self.compute(images).logits

    @torch.inference_mode()
    def attention(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels (B, C, H, W) -> cross-attention (B, depth, heads, latents, *token grid)."""
        _, attention = self._explainer(torch.from_numpy(images).to(self.device))
        result: NDArray[np.float32] = attention.float().cpu().numpy()
        return result

    def explaining(self) -> "TorchEngine":
        """This engine itself: PyTorch computes for several threads at a time."""
        return self
