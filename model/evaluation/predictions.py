"""What a network makes of many inputs, a batch at a time, on its own device."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.evaluation.scores import Logits
from model.network.recognizer import InputClassifier, Recognizer

BATCH_SIZE = 500

Inputs = NDArray[Any]  # (N, C, *shape)


def predict_logits(classifier: InputClassifier, inputs: Inputs) -> Logits:
    """Inputs (N, C, *shape) -> logits (N, classes)."""
    return _in_batches(classifier, inputs, lambda batch: (classifier(batch),))[0]


def predict(recognizer: Recognizer, inputs: Inputs) -> tuple[Logits, NDArray[np.float32]]:
    """Inputs (N, C, *shape) -> logits (N, classes), novelty (N,)."""
    logits, novelty = _in_batches(recognizer, inputs, recognizer)
    return logits, novelty


def summarise(classifier: InputClassifier, inputs: Inputs) -> NDArray[np.float32]:
    """Inputs (N, C, *shape) -> mean over the latents after each block (N, depth, D)."""
    return _in_batches(classifier, inputs, lambda batch: (classifier.summaries(batch),))[0]


def _in_batches(
    module: nn.Module, inputs: Inputs, compute: Callable[[Tensor], tuple[Tensor, ...]]
) -> list[NDArray[np.float32]]:
    device = next(module.parameters()).device
    with torch.inference_mode():
        parts = [
            [
                output.float().cpu()
                for output in compute(torch.tensor(inputs[start : start + BATCH_SIZE]).to(device))
            ]
            for start in range(0, len(inputs), BATCH_SIZE)
        ]
    return [torch.cat(outputs).numpy() for outputs in zip(*parts, strict=True)]
