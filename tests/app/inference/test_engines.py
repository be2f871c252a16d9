"""The runtimes compute the same model, and say what they lack."""

import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from app.inference.engines import EngineError, SelfCheck, choose_engine, create_engine, prove
from app.inference.engines.torch_engine import PaddedBatch
from model.checkpoint.folder import Checkpoint
from model.network.recognizer import folded, load_recognizer
from tests.conftest import ROOT


def probabilities(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_engines_agree(checkpoint: Checkpoint, digits: tuple[np.ndarray, np.ndarray]):
    parts = np.split(digits[0][:, None], 10)
    onnx, torch = (
        create_engine(checkpoint, name, "cpu", threads=1) for name in ("onnxruntime", "torch")
    )
    expected = np.concatenate([torch.compute(part).logits for part in parts])
    assert expected.shape == (1000, 10)
    assert expected.dtype == np.float32
    actual = np.concatenate([onnx.compute(part).logits for part in parts])
    assert np.abs(probabilities(actual) - probabilities(expected)).max() < 1e-4
    assert onnx.compute(parts[0][:1]).logits.shape == (1, 10)


@pytest.mark.parametrize("engine", ["auto", "onnxruntime", "torch"])
def test_cpu_is_there(engine: str):
    name, device = choose_engine(engine, "cpu")
    assert name == ("torch" if engine == "torch" else "onnxruntime")
    assert device == "cpu"


@pytest.mark.parametrize(
    ("engine", "device"), [("onnxruntime", "cuda"), ("torch", "cuda:99"), ("auto", "cuda:99")]
)
def test_what_is_not_there_is_refused(engine: str, device: str):
    with pytest.raises(EngineError, match=r"CUDA"):
        choose_engine(engine, device)


def test_an_unusable_graph_is_refused(checkpoint: Checkpoint):
    with pytest.raises(EngineError, match=r"model\.onnx"):
        create_engine(replace(checkpoint, onnx=b"no graph"), "onnxruntime", "cpu", threads=1)


def test_importing_the_service_imports_no_torch():
    code = "import sys, app.application, app.serve_command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_onnxruntime_tells_its_makers_nothing(checkpoint: Checkpoint, tmp_path: Path):
    """Its usage data would go with a device id that it keeps in the home folder."""
    code = "import sys, app.inference.engines as e, model.checkpoint.folder as c, pathlib as p;"
    code += "e.create_engine(c.read_checkpoint(p.Path(sys.argv[1])), 'onnxruntime', 'cpu', 1)"
    command = [sys.executable, "-c", code, str(checkpoint.folder)]
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(command, cwd=ROOT, env=environment | {"HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_computes_something_else_is_refused(checkpoint: Checkpoint):
    engine = create_engine(checkpoint, "onnxruntime", "cpu", threads=1)
    check = SelfCheck.of(checkpoint)
    prove(engine, check)
    with np.load(BytesIO(checkpoint.self_check)) as arrays:
        stored = dict(arrays)
    for name in ("logits", "novelty"):
        file = BytesIO()
        np.savez(file, **stored | {name: stored[name] + 0.01})
        with pytest.raises(EngineError, match=f"self-check: {name} are off by 0.01"):
            prove(engine, SelfCheck.of(replace(checkpoint, self_check=file.getvalue())))
    engine.compute = None
    with pytest.raises(EngineError, match="self-check"):
        prove(engine, check)


def test_half_precision_in_padded_batches_reads_the_same(
    checkpoint: Checkpoint, digits: tuple[np.ndarray, np.ndarray]
):
    """What the engine does on CUDA but for the graphs, which need one."""
    images = digits[0][:250, None]
    recognizer = load_recognizer(checkpoint)
    with torch.inference_mode():
        expected = recognizer(torch.from_numpy(images))[0].numpy()
        batch = PaddedBatch(folded(recognizer).half(), 64, checkpoint.card.input, "cpu")
        parts = [batch.compute(part) for part in np.array_split(images, 4)]  # of 63 and 62
    actual = np.concatenate([part.logits for part in parts])
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() < 0.05
    assert (actual.argmax(axis=1) == expected.argmax(axis=1)).all()
