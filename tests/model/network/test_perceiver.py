"""The Perceiver against a plain implementation of the paper and against PyTorch's own attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.flops import count_flops
from model.network.perceiver import Block, CrossAttention, Perceiver, SelfAttention

SHAPES = [(28, 28), (50,), (4, 6, 5)]


def plain_cross_attention(layer: CrossAttention, latents: Tensor, tokens: Tensor) -> Tensor:
    """Keys and values projected for every token: the textbook form that `layer` folds away."""

    def heads(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (layer.heads, -1)).transpose(1, 2)

    queries = heads(layer.query(layer.norm(latents)))
    keys, values = heads(layer.key(tokens)), heads(layer.value(tokens))
    logits = queries @ keys.transpose(2, 3) / math.sqrt(keys.shape[-1])
    return layer.out((logits.softmax(-1) @ values).transpose(1, 2).flatten(2))


def multihead_attention(layer: CrossAttention | SelfAttention, width: int) -> nn.MultiheadAttention:
    """PyTorch's attention with the weights of `layer`; `width`: of keys and values."""
    dim = layer.out.in_features
    oracle = nn.MultiheadAttention(dim, layer.heads, kdim=width, vdim=width, batch_first=True)
    with torch.no_grad():
        if isinstance(layer, CrossAttention):
            oracle.q_proj_weight.copy_(layer.query.weight)
            oracle.k_proj_weight.copy_(layer.key.weight)
            oracle.v_proj_weight.copy_(layer.value.weight)
            zeros = torch.zeros(dim)
            oracle.in_proj_bias.copy_(torch.cat([layer.query.bias, zeros, zeros]))
        else:
            oracle.in_proj_weight.copy_(layer.query_key_value.weight)
            oracle.in_proj_bias.copy_(layer.query_key_value.bias)
        oracle.out_proj.load_state_dict(layer.out.state_dict())
    return oracle


def plain_forward(model: Perceiver, inputs: Tensor, cross, attend) -> Tensor:
    """The whole Perceiver as DESIGN and paper describe it, given the two kinds of attention."""
    tokens = model.tokens(inputs)
    latents = model.latents.expand(len(inputs), -1, -1)
    for index in range(model.depth):
        block = model.blocks[min(index, len(model.blocks) - 1)]
        assert isinstance(block, Block)
        latents = latents + cross(block.cross, latents, tokens)
        latents = latents + block.cross_mlp(latents)
        for layer in block.layers:
            latents = latents + attend(layer.attention, latents)
            latents = latents + layer.mlp(latents)
    return model.head(latents.mean(dim=1))


def torch_cross(layer: CrossAttention, latents: Tensor, tokens: Tensor) -> Tensor:
    oracle = multihead_attention(layer, tokens.shape[-1])
    return oracle(layer.norm(latents), tokens, tokens, need_weights=False)[0]


def torch_attend(layer: SelfAttention, latents: Tensor) -> Tensor:
    normed = layer.norm(latents)
    oracle = multihead_attention(layer, latents.shape[-1])
    return oracle(normed, normed, normed, need_weights=False)[0]


def small(input_shape: tuple[int, ...] = (28, 28), **arguments) -> Perceiver:
    torch.manual_seed(3)
    return Perceiver(
        **{
            "depth": 3,
            "num_channels": 2,
            "input_shape": input_shape,
            "num_latents": 5,
            "latent_dim": 24,
            "latent_heads": 4,
            "cross_heads": 3,
            "self_per_cross_atn": 2,
            "num_features": 7,
            **arguments,
        }
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "arguments", [{}, {"share_weights": True}, {"input_adapter": "convolution"}]
)
def test_folded_attention_equals_plain_attention(shape: tuple[int, ...], arguments: dict):
    model = small(shape, **arguments)
    inputs = torch.randn(4, 2, *shape)

    outputs, gradients = [], []
    for forward in (
        model,
        lambda x: plain_forward(model, x, plain_cross_attention, lambda layer, z: layer(z)),
    ):
        model.zero_grad()
        logits = forward(inputs)
        F.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
        outputs.append(logits.detach())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})

    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch_multihead_attention(shape: tuple[int, ...]):
    model = small(shape)
    inputs = torch.randn(4, 2, *shape)
    expected = plain_forward(model, inputs, torch_cross, torch_attend)
    torch.testing.assert_close(model(inputs), expected, atol=1e-5, rtol=1e-5)


def test_default_constructor_is_the_published_one():
    model = Perceiver()
    assert model.latents.shape == (16, 64)
    assert len(model.blocks) == 6
    assert model.tokens(torch.zeros(1, 1, 28, 28)).shape == (1, 784, 1 + 2 * (2 * 4 + 1))
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    positional = Perceiver(2, 3, (8, 8), 2, 4, 32, 4, 0.1, 5, 1)
    assert positional(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


def test_position_features_are_the_papers():
    model = Perceiver(depth=1, input_shape=(5, 8), fourier_bands=3)
    features = model.position_features.view(5, 8, 14)
    row, column = 3, 6
    expected = []
    for coordinate, nyquist in ((-1 + 2 * row / 4, 2.5), (-1 + 2 * column / 7, 4.0)):
        bands = [1, (1 + nyquist) / 2, nyquist]
        expected.append(coordinate)
        expected += [math.sin(math.pi * coordinate * f) for f in bands]
        expected += [math.cos(math.pi * coordinate * f) for f in bands]
    torch.testing.assert_close(features[row, column], torch.tensor(expected), atol=1e-5, rtol=0)
    assert "position_features" not in model.state_dict()


def test_attention_maps_are_distributions_over_positions():
    model = small((9, 11))
    inputs = torch.randn(2, 2, 9, 11)
    logits, attention = model.forward_with_attention(inputs)
    assert attention.shape == (2, 3, 3, 5, 9, 11)
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum((-1, -2)), torch.ones(2, 3, 3, 5))
    torch.testing.assert_close(logits, model(inputs))


@pytest.mark.parametrize(
    ("shape", "grid"), [((28, 28), (14, 14)), ((51,), (26,)), ((4, 7, 1), (2, 4, 1))]
)
def test_convolution_halves_the_axes(shape: tuple[int, ...], grid: tuple[int, ...]):
    model = small(shape, input_adapter="convolution", adapter_channels=12, fourier_bands=3)
    inputs = torch.randn(2, 2, *shape)
    assert model.tokens(inputs).shape == (2, math.prod(grid), 12 + len(grid) * 7)
    assert model.forward_with_attention(inputs)[1].shape == (2, 3, 3, 5, *grid)


def test_convolution_sees_each_position_where_it_is():
    """A change of one pixel reaches the tokens around it and no other."""
    model = small(input_adapter="convolution")
    inputs = torch.randn(1, 2, 28, 28)
    changed = inputs.clone()
    changed[0, :, 20, 5] += 1.0
    moved = (model.tokens(inputs) - model.tokens(changed)).abs().amax(2).view(14, 14) > 0
    rows, columns = moved.nonzero(as_tuple=True)
    assert 9 <= rows.min() <= rows.max() <= 11
    assert 1 <= columns.min() <= columns.max() <= 4


def test_initial_gazes_are_narrow_and_lie_in_different_places():
    torch.manual_seed(0)
    model = Perceiver(depth=1)
    _, attention = model.forward_with_attention(torch.zeros(1, 1, 28, 28))
    maps = attention[0, 0].flatten(0, 1).flatten(1)  # (heads * latents, positions)
    effective_pixels = torch.exp(-(maps * maps.clamp_min(1e-12).log()).sum(1))
    assert effective_pixels.mean() < 100  # of 784; a plain initialisation gives over 500
    assert len(maps.argmax(1).unique()) > len(maps) / 2


def test_shared_weights_apply_one_block_again():
    unshared, shared = Perceiver(depth=4), Perceiver(depth=4, share_weights=True)
    count = [sum(p.numel() for p in m.blocks.parameters()) for m in (unshared, shared)]
    assert count[1] * 2 == count[0]


def test_latents_are_told_apart_by_place():
    """A Perceiver that ignored positions would give the same logits to shuffled pixels."""
    model = small()
    inputs = torch.randn(1, 2, 28, 28)
    shuffled = inputs.flatten(2)[:, :, torch.randperm(784)].view_as(inputs)
    assert (model(inputs) - model(shuffled)).abs().max() > 1e-3


def test_dropout_acts_in_training_alone():
    model = small(attn_dropout=0.5)
    inputs = torch.randn(1, 2, 28, 28)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"latent_heads": 5}, "latent_heads"),
        ({"cross_heads": 7}, "cross_heads"),
        ({"fourier_bands": 0}, "fourier_bands"),
        ({"depth": 0}, "depth"),
        ({"num_channels": 0}, "num_channels"),
        ({"num_latents": -1}, "num_latents"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"latent_heads": 0}, "latent_heads"),
        ({"num_features": 0}, "num_features"),
        ({"self_per_cross_atn": -1}, "self_per_cross_atn"),
        ({"mlp_ratio": 0}, "mlp_ratio"),
        ({"input_shape": ()}, "input_shape"),
        ({"input_shape": (28, 0)}, "input_shape"),
        ({"attn_dropout": 1.0}, "attn_dropout"),
        ({"attn_dropout": -0.1}, "attn_dropout"),
        ({"input_adapter": "patches"}, "input_adapter"),
        ({"input_adapter": "convolution", "input_shape": (2, 2, 2, 2)}, "input_adapter"),
        ({"adapter_channels": 0}, "adapter_channels"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict, name: str):
    with pytest.raises(ValueError, match=name):
        Perceiver(**arguments)


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 3, 28, 28), (2, 1, 28, 27), (1, 28, 28, 1)])
def test_inputs_of_another_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"inputs must have shape \(B, 1, 28, 28\)"):
        Perceiver(depth=1)(torch.zeros(shape))


def test_flops_are_two_for_each_multiply_add():
    model = small((10,), depth=1, num_channels=1, fourier_bands=2, self_per_cross_atn=0)
    positions, features, latents, dim, heads = 10, 1 + 5, 5, 24, 3
    projections = 2 * latents * dim * dim  # queries, output
    folding = 2 * latents * dim * features  # keys into the queries, values after the sum
    attention = 2 * heads * latents * features * positions  # logits, weighted sum
    mlp = 2 * 4 * latents * dim * dim
    multiply_adds = projections + folding + attention + mlp + dim * 7
    assert count_flops(model) == 2 * multiply_adds
