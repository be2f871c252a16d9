"""Runtimes that compute a checkpoint's logits, one file each behind one Protocol.

Only this folder knows which runtime computes; a runtime is imported when it is chosen.
"""

import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.folder import (
    SELF_CHECK_FILE,
    SELF_CHECK_PREFIX,
    Checkpoint,
    CheckpointError,
)

EngineName = Literal["onnxruntime", "torch"]


class EngineError(Exception):
    """The engine or device asked for can't be had, or can't compute; the message says why."""


class NoExplanationsError(EngineError):
    """The checkpoint lacks what explanations take."""


class Outputs(NamedTuple):
    """What a model computes of a batch."""

    logits: NDArray[np.float32]  # (B, classes)
    novelty: NDArray[np.float32]  # (B,) in [0, 1]; 0.5 is the threshold


class Engine(Protocol):
    """A model in memory, ready to compute.

    Attributes:
        concurrency: threads that may be in `compute` at the same time.
        tolerance: how far its outputs may be from those of exact arithmetic.
    """

    name: EngineName
    device: str
    concurrency: int
    tolerance: float

    def compute(self, values: NDArray[Any]) -> Outputs:
        """Values (B, C, *shape) of the input's dtype -> what the model says of each sample."""
        ...

    def explaining(self) -> "ExplainingEngine":
        """The same model, loaded anew to explain; its computations don't wait for this one's.

        Raises:
            NoExplanationsError: the checkpoint lacks what this takes.
            EngineError: the checkpoint holds something that does not explain its model.
        """
        ...


class ExplainingEngine(Protocol):
    """A model that tells where it looks; called from one thread at a time, any."""

    def logits(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values (B, C, *shape) -> logits (B, classes)."""
        ...

    def attention(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values (B, C, *shape) -> cross-attention (B, depth, heads, latents, *token grid)."""
        ...


def choose_engine(engine: str, device: str) -> tuple[EngineName, str]:
    """Settles what `auto` means on this machine.

    Args:
        engine: auto, onnxruntime or torch.
        device: auto, cpu, cuda or cuda:N.

    Returns: the engine's name and its device: cpu or cuda:N.

    Raises:
        EngineError: the engine is not installed, or has no such device here.
    """
    if engine == "onnxruntime" and device.startswith("cuda"):
        raise EngineError("the onnxruntime engine computes on the CPU; for CUDA use engine torch")
    if device == "cpu" or (device == "auto" and engine == "onnxruntime"):
        fallback: EngineName = "torch" if engine == "torch" else "onnxruntime"
        return _installed(fallback), "cpu"
    if device == "auto":
        if _has_nvidia_driver() and importlib.util.find_spec("torch") and _cuda_devices():
            return "torch", "cuda:0"
        return choose_engine(engine, "cpu")
    name, index = _installed("torch"), int(device.partition(":")[2] or 0)
    if index >= (count := _cuda_devices()):
        raise EngineError(f"there is no device {device}: PyTorch finds {count} CUDA devices")
    return name, f"cuda:{index}"


def create_engine(checkpoint: Checkpoint, engine: str, device: str, threads: int) -> Engine:
    """Loads a checkpoint into the chosen engine.

    Args:
        checkpoint: whose model computes.
        engine: auto, onnxruntime or torch.
        device: auto, cpu, cuda or cuda:N.
        threads: that computations on the CPU may use, at least 1.

    Raises:
        EngineError: see `choose_engine`; or the runtime can't load the model.
        CheckpointError: the weights do not fit the card's model config.
    """
    name, device = choose_engine(engine, device)
    if name == "torch":
        from app.inference.engines.torch_engine import TorchEngine

        return TorchEngine(checkpoint, device, threads)
    from app.inference.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(checkpoint, threads)


@dataclass(frozen=True)
class SelfCheck:
    """Samples, and what a model must make of them."""

    values: NDArray[Any]  # (B, C, *shape) of the input's dtype, at least one
    expected: Outputs

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """The checkpoint's own.

        Raises:
            CheckpointError: it is damaged, or of another model than the card's.
        """
        card, path = checkpoint.card, checkpoint.folder / SELF_CHECK_FILE
        try:
            with np.load(io.BytesIO(checkpoint.self_check)) as arrays:
                values = arrays[f"{SELF_CHECK_PREFIX}{card.input.name}"]
                expected = Outputs(arrays["logits"], arrays["novelty"])
        except Exception as error:  # whatever a damaged archive makes of its readers
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        count = len(values) if values.ndim else 0
        fits = (
            count > 0
            and values.shape[1:] == card.input.array_shape
            and values.dtype == card.input.dtype
            and expected.logits.shape == (count, len(card.labels))
            and expected.novelty.shape == (count,)
            and all(np.issubdtype(output.dtype, np.floating) for output in expected)
        )
        if not fits:
            raise CheckpointError(f"{path} is of another model than the card's")
        return cls(values, expected)


def prove(engine: Engine, check: SelfCheck) -> None:
    """Makes sure that an engine computes what the checkpoint's model should; in a batch and alone.

    Raises:
        EngineError: it can't compute, or its outputs are off by more than its tolerance.
    """
    where = f"the {engine.name} engine on {engine.device} fails its self-check"
    for rows in (slice(None), slice(1)):
        try:
            actual = engine.compute(check.values[rows])
        except Exception as error:
            raise EngineError(f"{where}: {error}") from error
        for name, ours, theirs in zip(Outputs._fields, actual, check.expected, strict=True):
            _compare(where, name, ours, theirs[rows], engine.tolerance)


def prove_explaining(engine: ExplainingEngine, check: SelfCheck, tolerance: float) -> None:
    """Makes sure that an engine explains the model that the checkpoint holds, on one sample.

    Raises:
        EngineError: it can't compute, its logits are off by more than the tolerance, or its
            attention is none.
    """
    where, sample = "explaining fails its self-check", check.values[:1]
    try:
        logits, attention = engine.logits(sample), engine.attention(sample)
    except Exception as error:
        raise EngineError(f"{where}: {error}") from error
    _compare(where, "logits", logits, check.expected.logits[:1], tolerance)
    if attention.ndim != sample.ndim + 2 or not attention.size or not np.isfinite(attention).all():
        raise EngineError(f"{where}: its attention {attention.shape} is none")


def _compare(
    where: str, name: str, ours: NDArray[Any], theirs: NDArray[Any], tolerance: float
) -> None:
    if ours.shape != theirs.shape:
        raise EngineError(f"{where}: {name} are {ours.shape} in place of {theirs.shape}")
    difference = float(np.abs(ours - theirs).max())
    if not difference <= tolerance:  # nor NaN
        raise EngineError(f"{where}: {name} are off by {difference:.2g}, more than {tolerance}")


def _installed(engine: EngineName) -> EngineName:
    if importlib.util.find_spec(engine) is None:
        extra = "[torch]" if engine == "torch" else ""
        raise EngineError(
            f"the engine {engine} is not installed: run pip install '.{extra}' in the project's "
            "folder"
        )
    return engine


def _has_nvidia_driver() -> bool:
    # Importing torch takes over a second, which a machine without a GPU should not pay.
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg"))


def _cuda_devices() -> int:
    from app.inference.engines.torch_engine import cuda_devices

    return cuda_devices()
