"""The folded form computes what the plain Perceiver computes."""

import pytest
import torch

from model.modalities.digits.modality import SPEC
from model.network.folded import FoldedPerceiver
from model.network.perceiver import Perceiver

SMALL = {"num_latents": 4, "latent_dim": 16, "latent_heads": 2, "cross_heads": 4}


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 1},
        {"depth": 2, "input_adapter": "convolution", "adapter_channels": 8},
        {"depth": 3, "share_weights": True, "self_per_cross_atn": 2},
        {"depth": 2, "self_per_cross_atn": 0},
        {"depth": 2, "input_shape": (11,), "num_channels": 3},
        {"depth": 1, "input_shape": (4, 5, 6), "num_channels": 2, "input_adapter": "convolution"},
    ],
    ids=str,
)
def test_same_function(arguments: dict[str, object]):
    torch.manual_seed(0)
    perceiver = Perceiver(**SMALL | arguments).eval()
    for parameter in perceiver.parameters():  # biases and norms start where folding shows nothing
        torch.nn.init.normal_(parameter, std=0.3)
    preprocessing = SPEC.model_copy(update={"mean": 0.4, "std": 0.2})
    shape = (5, perceiver.num_channels, *perceiver.input_shape)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    with torch.inference_mode():
        expected = perceiver((pixels / 255 - preprocessing.mean) / preprocessing.std)
        actual = FoldedPerceiver(perceiver, preprocessing)(pixels)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
