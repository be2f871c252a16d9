"""A Perceiver as engines compute it: the same function, with what is constant worked out.

Folded into the weights: the first block's queries, as far as what tokens are compared with; the
scale of normalisation; the scale of attention's logits. The last mean over the latents comes before
the last product, with which it commutes. The latents of a batch are the rows of one matrix, so that
each product is one, with its bias.

Shapes are named as in `model.network.perceiver`; R = B * L rows.
"""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.checkpoint.card import InputSpec
from model.network.perceiver import (
    MLP,
    Block,
    ConvolutionAdapter,
    CrossAttention,
    Perceiver,
    SelfAttention,
    SelfLayer,
)


class FoldedPerceiver(nn.Module):
    """A Perceiver in evaluation mode behind the normalisation of its input's spec.

    The Perceiver that it is made of stays as it is.
    """

    positions: Tensor

    def __init__(self, perceiver: Perceiver, spec: InputSpec) -> None:
        super().__init__()
        self.mean = spec.unit * spec.mean
        self.scale = 1 / (spec.unit * spec.std)
        self.adapter: nn.Module = nn.Identity()
        if isinstance(perceiver.adapter, ConvolutionAdapter):
            self.adapter = copy.deepcopy(perceiver.adapter)
            with torch.no_grad():  # of inputs that are not scaled then
                self.adapter.convolution.weight *= self.scale
            self.scale = 1.0
        self.register_buffer("positions", perceiver.position_features.detach()[None])  # (1, N, P)
        blocks = [block for block in perceiver.applied_blocks() if isinstance(block, Block)]
        self.num_latents = len(perceiver.latents)
        self.first_read = _FirstRead(blocks[0].cross, perceiver.latents)
        self.reads = nn.ModuleList(_Read(block.cross, self.num_latents) for block in blocks[1:])
        *stages, last = (_stages(block, self.num_latents) for block in blocks)
        self.blocks = nn.ModuleList(nn.Sequential(*parts) for parts in stages)
        self.last_block = nn.Sequential(*last[:-1], _MLPMean(last[-1], self.num_latents))
        self.head = perceiver.head

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, C, *input_shape), of the spec's dtype or float -> logits (B, classes)."""
        return self.classify(self.summaries(values))

    def summaries(self, values: Tensor) -> Tensor:
        """Values -> mean over the latents after each block, (B, depth, D)."""
        tokens = self.tokens(values)
        rows = self.first_read(tokens)
        means = []
        for block, read in zip(self.blocks, self.reads, strict=True):
            rows = block(rows)
            means.append(_split(rows, self.num_latents).mean(dim=1))
            rows = read(rows, tokens)
        return torch.stack([*means, self.last_block(rows)], dim=1)

    def classify(self, summaries: Tensor) -> Tensor:
        """Summaries (B, depth, D) -> logits (B, classes)."""
        logits: Tensor = self.head(summaries[:, -1])
        return logits

    def tokens(self, values: Tensor) -> Tensor:
        """The byte array (B, N, F), as `Perceiver.tokens` makes it of normalised values."""
        centred = values.to(self.positions.dtype) - self.mean
        channels: Tensor = self.adapter(centred if self.scale == 1.0 else centred * self.scale)
        channels = channels.movedim(1, -1).flatten(1, -2)  # (B, N, C)
        return torch.cat([channels, self.positions.expand(values.shape[0], -1, -1)], dim=2)


class _Read(nn.Module):
    """A cross-attention with its residual."""

    keys: Tensor
    values: Tensor

    def __init__(self, cross: CrossAttention, num_latents: int) -> None:
        super().__init__()
        keys, values = (
            linear.weight.detach().unflatten(0, (cross.heads, -1))  # (H, E, F)
            for linear in (cross.key, cross.value)
        )
        self.heads = cross.heads
        self.num_latents = num_latents
        self.norm = cross.norm
        self.query = _scaled_linear(cross.query, 1 / math.sqrt(keys.shape[1]))
        self.out = cross.out
        self.register_buffer("keys", keys)
        self.register_buffer("values", values.transpose(1, 2).contiguous())  # (H, F, E)

    def forward(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Latents (R, D), tokens (B, N, F) -> latents (R, D)."""
        update: Tensor = self.out(self.read(self.queries(rows), tokens))
        return rows + update

    def queries(self, rows: Tensor) -> Tensor:
        """(R, D) -> what tokens are compared with, (B, H * L, F)."""
        queries = _split(self.query(self.norm(rows)), self.num_latents, self.heads)
        return (queries.transpose(1, 2) @ self.keys).flatten(1, 2)

    def read(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B or 1, H * L, F), (B, N, F) -> heads beside each other (R, D)."""
        attention = (queries @ tokens.transpose(1, 2)).softmax(dim=-1)  # (B, H * L, N)
        summed = (attention @ tokens).unflatten(1, (self.heads, -1))  # (B, H, L, F)
        return _join(summed @ self.values)


class _FirstRead(_Read):
    """The first one: its latents, so its queries too, are the same for every input."""

    constant_queries: Tensor
    constant_latents: Tensor

    def __init__(self, cross: CrossAttention, latents: Tensor) -> None:
        super().__init__(cross, len(latents))
        with torch.no_grad():
            self.register_buffer("constant_queries", self.queries(latents))  # (1, H * L, F)
            self.register_buffer("constant_latents", (latents + cross.out.bias)[None])  # (1, L, D)
        del self.norm, self.query, self.keys

    # No latents go in: they are constant here.
    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        """(B, N, F) -> latents (R, D)."""
        update = F.linear(self.read(self.constant_queries, tokens), self.out.weight)
        return (self.constant_latents + _split(update, self.num_latents)).flatten(0, 1)


class _SelfAttention(nn.Module):
    """A self-attention with its residual; queries, keys and values each by a product of its own."""

    def __init__(self, attention: SelfAttention, num_latents: int) -> None:
        super().__init__()
        self.num_latents = num_latents
        self.heads = attention.heads
        self.norm = attention.norm
        width = attention.out.in_features
        self.query, self.key, self.value = (
            _linear(weight, bias)
            for weight, bias in zip(
                attention.query_key_value.weight.split(width),
                attention.query_key_value.bias.split(width),
                strict=True,
            )
        )
        self.query = _scaled_linear(self.query, 1 / math.sqrt(width // self.heads))
        self.out = attention.out

    def forward(self, rows: Tensor) -> Tensor:
        """(R, D) -> (R, D)."""
        normed = self.norm(rows)
        queries, keys, values = (
            _split(linear(normed), self.num_latents, self.heads).transpose(1, 2)  # (B, H, L, E)
            for linear in (self.query, self.key, self.value)
        )
        heads = (queries @ keys.transpose(2, 3)).softmax(dim=-1) @ values
        update: Tensor = self.out(_join(heads))
        return rows + update


class _MLP(nn.Module):
    """A perceptron with its residual."""

    def __init__(self, norm: nn.Module, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.norm, self.first, self.second = norm, first, second

    def forward(self, rows: Tensor) -> Tensor:
        """(R, D) -> (R, D)."""
        update: Tensor = self.second(self.hidden(rows))
        return rows + update

    def hidden(self, rows: Tensor) -> Tensor:
        """(R, D) -> (R, hidden width)."""
        return F.gelu(self.first(self.norm(rows)))


class _MLPMean(_MLP):
    """The mean over the latents of what an `_MLP` gives."""

    def __init__(self, mlp: _MLP, num_latents: int) -> None:
        super().__init__(mlp.norm, mlp.first, mlp.second)
        self.num_latents = num_latents

    def forward(self, rows: Tensor) -> Tensor:
        """(R, D) -> (B, D)."""
        hidden = _split(self.hidden(rows), self.num_latents).mean(dim=1)
        update: Tensor = self.second(hidden)
        return _split(rows, self.num_latents).mean(dim=1) + update


def _stages(block: Block, num_latents: int) -> list[Any]:
    """What a block does after its read; an `_MLP` comes last."""
    stages: list[nn.Module] = [_mlp(block.cross_mlp)]
    for layer in block.layers:
        assert isinstance(layer, SelfLayer)
        stages += [_SelfAttention(layer.attention, num_latents), _mlp(layer.mlp)]
    return stages


def _mlp(mlp: MLP) -> _MLP:
    norm, first, _, second = mlp
    return _MLP(norm, first, second)


def _split(rows: Tensor, num_latents: int, heads: int | None = None) -> Tensor:
    """(R, D) -> (B, L, D), or with heads (B, L, H, E)."""
    latents: Tensor = rows.unflatten(0, (-1, num_latents))
    return latents if heads is None else latents.unflatten(-1, (heads, -1))


def _join(heads: Tensor) -> Tensor:
    """(B, H, L, E) -> (R, D)."""
    return heads.transpose(1, 2).flatten(2).flatten(0, 1)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight, linear.bias = (nn.Parameter(t.detach(), False) for t in (weight, bias))
    return linear


def _scaled_linear(linear: nn.Linear, scale: float) -> nn.Linear:
    return _linear(linear.weight * scale, linear.bias * scale)
