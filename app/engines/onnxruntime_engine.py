"""ONNX Runtime on the CPU: starts in a fraction of torch's time and memory."""

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engines import EngineError, EngineName
from model.checkpoint import ONNX_FILE, Checkpoint


class OnnxRuntimeEngine:
    """Runs the checkpoint's model.onnx, which holds the normalisation too."""

    name: EngineName = "onnxruntime"
    device = "cpu"

    def __init__(self, checkpoint: Checkpoint, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        # Threads that spin on between requests take the cores that decode the next ones.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                checkpoint.onnx, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own exceptions share no public base
            path = checkpoint.folder / ONNX_FILE
            raise EngineError(f"ONNX Runtime cannot load {path}: {error}") from error

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels (B, C, H, W) -> logits (B, classes)."""
        (logits,) = self._session.run(["logits"], {"images": images})
        result: NDArray[np.float32] = logits
        return result
