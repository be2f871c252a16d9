"""PyTorch on the CPU or a CUDA device."""

import numpy as np
import torch
from numpy.typing import NDArray

from app.engines import EngineError, EngineName
from model.checkpoint import Checkpoint, load_perceiver
from model.export import PixelClassifier, PixelExplainer


class TorchEngine:
    """Runs the checkpoint's model.safetensors."""

    name: EngineName = "torch"
    concurrency = 1

    def __init__(self, checkpoint: Checkpoint, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = device
        classifier = PixelClassifier(load_perceiver(checkpoint), checkpoint.card.preprocessing)
        try:
            self._classifier = classifier.eval().to(device)
            self._explainer = PixelExplainer(self._classifier).eval()
        except RuntimeError as error:
            raise EngineError(f"PyTorch cannot use the device {device}: {error}") from error

    @torch.inference_mode()
    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels (B, C, H, W) -> logits (B, classes)."""
        logits = self._classifier(torch.from_numpy(images).to(self.device))
        result: NDArray[np.float32] = logits.float().cpu().numpy()
        return result

    @torch.inference_mode()
    def attention(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels (B, C, H, W) -> cross-attention (B, depth, heads, latents, *token grid)."""
        _, attention = self._explainer(torch.from_numpy(images).to(self.device))
        result: NDArray[np.float32] = attention.float().cpu().numpy()
        return result

    def explaining(self) -> "TorchEngine":
        """This engine itself: PyTorch computes for several threads at a time."""
        return self
