"""The ONNX graph computes what the model computes, for any batch size, and nothing is left over."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from model.config import Preprocessing
from model.export import PARITY_TOLERANCE, PixelClassifier, export_onnx, parity
from model.perceiver import Perceiver


@pytest.fixture(scope="module")
def classifier() -> PixelClassifier:
    torch.manual_seed(0)
    perceiver = Perceiver(depth=2, num_latents=4, latent_dim=16, latent_heads=2, cross_heads=2)
    return PixelClassifier(perceiver, Preprocessing()).eval()


@pytest.fixture(scope="module")
def graph(classifier: PixelClassifier) -> bytes:
    return export_onnx(classifier.perceiver, Preprocessing())


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_same_logits_for_any_batch(classifier: PixelClassifier, graph: bytes, batch: int):
    images = np.random.default_rng(batch).integers(0, 256, (batch, 1, 28, 28), dtype=np.uint8)
    assert parity(classifier, graph, images) <= PARITY_TOLERANCE


def test_parity_notices_other_weights(classifier: PixelClassifier, graph: bytes):
    torch.manual_seed(1)
    other = Perceiver(depth=2, num_latents=4, latent_dim=16, latent_heads=2, cross_heads=2)
    images = np.zeros((1, 1, 28, 28), dtype=np.uint8)
    assert parity(PixelClassifier(other, Preprocessing()), graph, images) > PARITY_TOLERANCE


def test_graph_takes_pixels_by_name(graph: bytes):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [1, 28, 28])
    assert (logits.name, logits.type) == ("logits", "tensor(float)")
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)


def test_normalisation_is_the_cards():
    perceiver = Perceiver(depth=1)
    classifier = PixelClassifier(perceiver, Preprocessing(mean=0.5, std=0.25))
    pixels = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(classifier.normalise(pixels), torch.tensor([[[[-2.0, 2.0]]]]))
