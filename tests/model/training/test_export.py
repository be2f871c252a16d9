"""The ONNX graph computes what the model computes, for any batch size, and nothing is left over."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from model.__main__ import main
from model.checkpoint.config import PerceiverConfig
from model.checkpoint.folder import Checkpoint, explain_weights, read_checkpoint, write_checkpoint
from model.modalities.digits.modality import SPEC
from model.network.perceiver import Perceiver
from model.network.recognizer import (
    InputClassifier,
    NoveltyHead,
    Recognizer,
    load_recognizer,
    pack_weights,
)
from model.training.export import PARITY_TOLERANCE, export_explain_onnx, export_onnx, parity


def small_recognizer(seed: int, depth: int = 2) -> Recognizer:
    torch.manual_seed(seed)
    perceiver = Perceiver(depth=depth, num_latents=4, latent_dim=16, latent_heads=2, cross_heads=2)
    classifier = InputClassifier(perceiver, SPEC)
    return Recognizer(classifier, NoveltyHead(depth, 16)).eval()


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return small_recognizer(seed=0)


@pytest.fixture(scope="module")
def graph(recognizer: Recognizer) -> bytes:
    return export_onnx(recognizer)


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_same_outputs_for_any_batch(recognizer: Recognizer, graph: bytes, batch: int):
    images = np.random.default_rng(batch).integers(0, 256, (batch, 1, 28, 28), dtype=np.uint8)
    images[0] = 0  # a blank one has a novelty of its own
    assert parity(recognizer, graph, images) <= PARITY_TOLERANCE


def test_parity_notices_other_weights(graph: bytes):
    images = np.zeros((1, 1, 28, 28), dtype=np.uint8)
    assert parity(small_recognizer(seed=1), graph, images) > PARITY_TOLERANCE


def test_only_a_blank_image_is_surely_novel(graph: bytes):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    images = np.zeros((2, 1, 28, 28), dtype=np.uint8)
    images[1, 0, 14, 14] = 1
    (novelty,) = session.run(["novelty"], {"image": images})
    assert novelty[0] == 1
    assert 0 < novelty[1] < 1


def test_graph_takes_pixels_by_name(graph: bytes):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (image,), (logits, novelty) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [1, 28, 28])
    assert (logits.name, logits.type) == ("logits", "tensor(float)")
    assert (novelty.name, novelty.type) == ("novelty", "tensor(float)")
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)


def test_normalisation_is_the_cards():
    perceiver = Perceiver(depth=1)
    classifier = InputClassifier(perceiver, SPEC.model_copy(update={"mean": 0.5, "std": 0.25}))
    pixels = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(classifier.normalise(pixels), torch.tensor([[[[-2.0, 2.0]]]]))


def test_explaining_graph_computes_logits_and_attention(recognizer: Recognizer, graph: bytes):
    classifier = recognizer.classifier
    weights = pack_weights(recognizer)
    content = export_explain_onnx(classifier, weights)
    assert len(content) < len(graph), "it holds no weights of its own"
    arrays = explain_weights(weights)
    options = onnxruntime.SessionOptions()
    options.add_external_initializers(
        list(arrays), [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in arrays.values()]
    )
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28), dtype=np.uint8)
    logits, attention = session.run(["logits", "attention"], {"image": images})
    with torch.inference_mode():
        pixels = classifier.normalise(torch.from_numpy(images))
        expected_logits, expected_attention = classifier.perceiver.forward_with_attention(pixels)
    np.testing.assert_allclose(logits, expected_logits, atol=PARITY_TOLERANCE)
    np.testing.assert_allclose(attention, expected_attention, atol=PARITY_TOLERANCE)


def test_graphs_are_made_anew_from_the_weights(checkpoint: Checkpoint, tmp_path: Path):
    config = PerceiverConfig(depth=1, num_latents=4, latent_dim=16, latent_heads=2, cross_heads=2)
    weights = pack_weights(small_recognizer(seed=2, depth=1))
    stale = dict.fromkeys(("model.onnx", "selfcheck.npz"), b"out of date")
    old = {"model.safetensors": weights, "notes.txt": b"kept", **stale}
    card = checkpoint.card.model_copy(update={"model": config, "name": "small"})
    write_checkpoint(tmp_path / "small", card, old)
    assert read_checkpoint(tmp_path / "small").explain_onnx is None

    assert main(["export", str(tmp_path / "small")]) == 0
    renewed = read_checkpoint(tmp_path / "small")
    images = np.zeros((2, 1, 28, 28), dtype=np.uint8)
    assert parity(load_recognizer(renewed), renewed.onnx, images) <= PARITY_TOLERANCE
    assert renewed.explain_onnx
    assert renewed.weights == weights
    assert (tmp_path / "small/notes.txt").read_bytes() == b"kept"
    assert main(["export", str(tmp_path / "absent")]) == 2
