"""PyTorch on the CPU or a CUDA device.

On CUDA the weights are float16 and stay there, values travel as they are through pinned memory, and
a batch is padded to a power of two, whose kernels are launched at once as a CUDA graph.
"""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.inference.engines import (
    EngineError,
    EngineName,
    Outputs,
    SelfCheck,
    prove_explaining,
)
from model.checkpoint.card import InputSpec
from model.checkpoint.folder import Checkpoint
from model.network.recognizer import (
    InputExplainer,
    Recognizer,
    folded,
    load_recognizer,
    plain_classifier,
)

# Runs before a capture, in which libraries set up what they need.
WARM_UPS = 3


def cuda_devices() -> int:
    """CUDA devices of this machine that PyTorch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class TorchEngine:
    """Runs the checkpoint's model.safetensors."""

    name: EngineName = "torch"
    concurrency = 1

    def __init__(self, checkpoint: Checkpoint, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = device
        on_cuda = device.startswith("cuda")
        self.tolerance = 5e-2 if on_cuda else 1e-3
        recognizer = load_recognizer(checkpoint)
        self._spec = checkpoint.card.input
        self._check = SelfCheck.of(checkpoint)
        try:
            # A copy, for explanations keep the weights as they are.
            self._recognizer = copy.deepcopy(folded(recognizer)).to(device)
            if on_cuda:
                self._recognizer.half()
            self._explainer = InputExplainer(plain_classifier(recognizer)).eval().to(device)
        except RuntimeError as error:
            raise EngineError(f"PyTorch cannot use the device {device}: {error}") from error
        self._batches: dict[int, PaddedBatch] | None = {} if on_cuda else None

    @torch.inference_mode()
    def compute(self, values: NDArray[Any]) -> Outputs:
        """Values (B, C, *shape) -> what the model says of each sample."""
        if self._batches is None:
            logits, novelty = self._recognizer(torch.from_numpy(values))
            return Outputs(logits.numpy(), novelty.numpy())
        size = 1 << (len(values) - 1).bit_length()
        if size not in self._batches:
            self._batches[size] = PaddedBatch(self._recognizer, size, self._spec, self.device)
        return self._batches[size].compute(values)

    @torch.inference_mode()
    def logits(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values (B, C, *shape) -> logits (B, classes)."""
        logits, _ = self._explainer(torch.from_numpy(values).to(self.device))
        result: NDArray[np.float32] = logits.cpu().numpy()
        return result

    @torch.inference_mode()
    def attention(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values (B, C, *shape) -> cross-attention (B, depth, heads, latents, *token grid)."""
        _, attention = self._explainer(torch.from_numpy(values).to(self.device))
        result: NDArray[np.float32] = attention.float().cpu().numpy()
        return result

    def explaining(self) -> "TorchEngine":
        """This engine itself: explanations take weights of their own."""
        prove_explaining(self, self._check, self.tolerance)
        return self


class PaddedBatch:
    """Batches of up to `size` samples through buffers that stay where they are.

    On CUDA a graph replays the computation; elsewhere it is called, on the same buffers.
    """

    def __init__(self, recognizer: Recognizer, size: int, spec: InputSpec, device: str) -> None:
        on_cuda = device.startswith("cuda")
        self._recognizer = recognizer
        self._host = torch.zeros(
            size, *spec.array_shape, dtype=getattr(torch, spec.dtype), pin_memory=on_cuda
        )
        self._values = self._host.to(device) if on_cuda else self._host
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_cuda:
            stream = torch.cuda.Stream(device)
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self._recognizer(self._values)
            stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._outputs = self._call()
        else:
            self._outputs = self._call()
        self._answers = [
            torch.empty(output.shape, dtype=output.dtype, pin_memory=on_cuda)
            for output in self._outputs
        ]

    def compute(self, values: NDArray[Any]) -> Outputs:
        """Values (B, C, *shape), no more than the batch holds -> what the model says of each."""
        count = len(values)
        self._host[:count] = torch.from_numpy(values)
        if self._graph is None:
            self._outputs = self._call()
        else:
            self._values[:count].copy_(self._host[:count], non_blocking=True)
            self._graph.replay()
        for answer, output in zip(self._answers, self._outputs, strict=True):
            answer.copy_(output, non_blocking=True)
        if self._graph is not None:
            torch.cuda.current_stream(self._values.device).synchronize()
        logits, novelty = (answer[:count].clone().numpy() for answer in self._answers)
        return Outputs(logits, novelty)

    def _call(self) -> tuple[Tensor, Tensor]:
        logits, novelty = self._recognizer(self._values)
        return logits.float(), novelty.float()
