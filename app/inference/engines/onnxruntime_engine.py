"""ONNX Runtime on the CPU: starts in a fraction of torch's time and memory."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.inference.engines import (
    EngineError,
    EngineName,
    NoExplanationsError,
    Outputs,
    SelfCheck,
    prove_explaining,
)
from model.checkpoint.folder import (
    EXPLAIN_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    explain_weights,
)


class OnnxRuntimeEngine:
    """Runs the checkpoint's model.onnx, which holds the normalisation too."""

    name: EngineName = "onnxruntime"
    device = "cpu"
    tolerance = 1e-3

    def __init__(self, checkpoint: Checkpoint, threads: int) -> None:
        # A core is left to the event loop, which feeds them.
        self.concurrency = max(1, threads - 1)
        self._checkpoint = checkpoint
        self._input = checkpoint.card.input.name
        self._session = _session(checkpoint.folder / ONNX_FILE, checkpoint.onnx, _options())

    def compute(self, values: NDArray[Any]) -> Outputs:
        """Values (B, C, *shape) -> what the model says of each sample."""
        return Outputs(*self._session.run(["logits", "novelty"], {self._input: values}))

    def explaining(self) -> "OnnxRuntimeExplainingEngine":
        """The same model, loaded anew to explain; on one core, to leave the others to `compute`."""
        engine = OnnxRuntimeExplainingEngine(self._checkpoint)
        prove_explaining(engine, SelfCheck.of(self._checkpoint), self.tolerance)
        return engine


class OnnxRuntimeExplainingEngine:
    """Runs the checkpoint's explain.onnx on the arrays of its model.safetensors."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        path = checkpoint.folder / EXPLAIN_FILE
        if checkpoint.explain_onnx is None:
            raise NoExplanationsError(f"there is no {path}: `perceiver export` makes it")
        self._input = checkpoint.card.input.name
        try:
            arrays = explain_weights(checkpoint.weights)
        except Exception as error:  # whatever a damaged file makes of its readers
            path = checkpoint.folder / WEIGHTS_FILE
            raise EngineError(f"{path} holds no arrays: {error!r}") from error
        options = _options()
        options.add_external_initializers(
            list(arrays), [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in arrays.values()]
        )
        self._session = _session(path, checkpoint.explain_onnx, options)

    def logits(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values (B, C, *shape) -> logits (B, classes)."""
        return self._run("logits", values)

    def attention(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values (B, C, *shape) -> cross-attention (B, depth, heads, latents, *token grid)."""
        return self._run("attention", values)

    def _run(self, output: str, values: NDArray[Any]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._session.run([output], {self._input: values})[0]
        return result


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    # One thread per computation, several computations at once: no thread waits for another.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return options


def _session(
    path: Path, content: bytes, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions share no public base
        raise EngineError(f"ONNX Runtime cannot load {path}: {error}") from error
