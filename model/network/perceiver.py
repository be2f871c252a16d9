"""The Perceiver: latents that read a byte array by cross-attention.

Jaegle et al., "Perceiver: General Perception with Iterative Attention", ICML 2021.

Shapes in the comments: B batch, C channels, N positions of the byte array, F features of a token,
L latents, D latent width, H heads, E = D / H width of a head.
"""

import math
from collections.abc import Iterator
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The first cross-attention maps. With plain initialisation they start almost uniform over the byte
# array, every latent reads the same mean pixel, and training loses epochs to get out of it. So each
# head of each latent starts with a gaze of its own: a Gaussian window at a random place, narrow for
# the first head, wide for the last. Narrower ones than these see single pixels and learn slowly.
GAZE_WIDTHS = (0.1, 0.2)  # standard deviations; an axis runs over [-1, 1]
GAZE_SPREAD = 0.75  # the centres lie in [-GAZE_SPREAD, GAZE_SPREAD] of each axis
GAZE_DEPTH = 16.0  # how far a window's logits fall at most

InputAdapter = Literal["pixels", "convolution"]


def position_grid(input_shape: tuple[int, ...]) -> Tensor:
    """Coordinates of every position, each axis from -1 to 1: (N, axes), row-major."""
    axes = [torch.linspace(-1.0, 1.0, length) for length in input_shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def band_frequencies(length: int, bands: int) -> Tensor:
    """(bands,) evenly from 1 to the axis' Nyquist frequency, half its length (section 3.2)."""
    return torch.linspace(1.0, max(1.0, length / 2), bands)


def fourier_position_features(
    coordinates: Tensor, input_shape: tuple[int, ...], bands: int
) -> Tensor:
    """Per axis: the coordinate, the sines and the cosines of its Fourier bands (section 3.2).

    Coordinates (M, axes) in [-1, 1] -> (M, axes * (2 * bands + 1)).
    """
    features = []
    for axis, length in enumerate(input_shape):
        coordinate = coordinates[:, axis : axis + 1]  # (M, 1)
        angles = math.pi * coordinate * band_frequencies(length, bands)  # (M, bands)
        features += [coordinate, angles.sin(), angles.cos()]
    return torch.cat(features, dim=1)


def _window(length: int, bands: int, width: float) -> Tensor:
    """Weights of one axis' position features that draw a Gaussian window: (2 * bands + 1,).

    The least-squares fit of a sum of the bands' cosines to the window's logarithm, cut off at
    -GAZE_DEPTH; what the bands can't draw, a constant included, softmax or training makes good.
    """
    distance = torch.linspace(-1 - GAZE_SPREAD, 1 + GAZE_SPREAD, 8 * length + 1)
    logarithm = -(distance**2 / (2 * width**2)).clamp(max=GAZE_DEPTH)
    cosines = torch.cos(math.pi * distance[:, None] * band_frequencies(length, bands))
    basis = torch.cat([torch.ones(len(distance), 1), cosines], dim=1)
    solution = torch.linalg.lstsq(basis.double(), logarithm[:, None].double()).solution
    weights = solution[1:, 0].float()
    return torch.cat([torch.zeros(1), weights, weights])


class CrossAttention(nn.Module):
    """Latents attend to tokens, without projecting any token to a key or a value.

    A token is narrow (F = 19 for MNIST), so the key matrix is folded into the queries and the
    value matrix is applied to the weighted sum of raw tokens: `(q W_k) t = q (W_k t)` and
    `W_v (sum a t) = sum a (W_v t)`. Same function, less work by N / L. Keys need no bias (softmax
    ignores what is constant over positions), values none (the output bias does its work).
    """

    def __init__(self, latent_dim: int, token_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm = nn.LayerNorm(latent_dim)
        self.query = nn.Linear(latent_dim, latent_dim)
        self.key = nn.Linear(token_dim, latent_dim, bias=False)
        self.value = nn.Linear(token_dim, latent_dim, bias=False)
        self.out = nn.Linear(latent_dim, latent_dim)

    @torch.no_grad()
    def aim(self, latents: Tensor, targets: Tensor) -> None:
        """Sets keys and queries so that `latents` (L, D) start with folded queries `targets`.

        targets: (H, L, F); met up to the rank that a head's E dimensions allow.
        """
        head_dim = self.key.weight.shape[0] // self.heads
        keys = self.key.weight.unflatten(0, (self.heads, -1))  # (H, E, F), a view
        # In float64, whose noise float32 rounds away: LAPACK's last bits differ from call to call.
        targets = targets.double()
        basis = torch.linalg.svd(targets, full_matrices=False).Vh[:, :head_dim]  # (H, R, F)
        keys[:, : basis.shape[1]] = basis
        queries = targets.new_zeros(self.heads, len(latents), head_dim)  # (H, L, E)
        queries[..., : basis.shape[1]] = targets @ basis.transpose(1, 2) * math.sqrt(head_dim)
        nn.init.zeros_(self.query.bias)
        solution = torch.linalg.pinv(self.norm(latents).double()) @ queries.transpose(0, 1).flatten(
            1
        )
        self.query.weight.copy_(solution.T)  # (D, D), heads in rows

    def attention(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Where each latent looks: (B or 1, L, D), (B, N, F) -> (B, H, L, N), rows sum to 1."""
        queries = self.query(self.norm(latents)).unflatten(-1, (self.heads, -1))  # (B, L, H, E)
        keys = self.key.weight.unflatten(0, (self.heads, -1))  # (H, E, F)
        folded = queries.transpose(1, 2) @ keys / math.sqrt(keys.shape[1])  # (B, H, L, F)
        # One product for all heads: they share the tokens as keys.
        logits = folded.flatten(1, 2) @ tokens.transpose(1, 2)  # (B, H * L, N)
        attention: Tensor = logits.softmax(dim=-1).unflatten(1, (self.heads, -1))
        return attention

    def read(self, attention: Tensor, tokens: Tensor) -> Tensor:
        """Attention (B, H, L, N) and tokens (B, N, F) -> update of the latents (B, L, D)."""
        attention = F.dropout(attention, self.dropout, self.training)
        summed = (attention.flatten(1, 2) @ tokens).unflatten(1, (self.heads, -1))  # (B, H, L, F)
        values = self.value.weight.unflatten(0, (self.heads, -1))  # (H, E, F)
        heads = summed @ values.transpose(1, 2)  # (B, H, L, E)
        update: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return update


class SelfAttention(nn.Module):
    """Latents attend to each other."""

    def __init__(self, latent_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm = nn.LayerNorm(latent_dim)
        self.query_key_value = nn.Linear(latent_dim, 3 * latent_dim)
        self.out = nn.Linear(latent_dim, latent_dim)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, L, D) -> update (B, L, D)."""
        qkv = self.query_key_value(self.norm(latents)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, L, E)
        # Few latents: written out, it compiles to fewer and faster kernels than a fused attention.
        attention = (queries @ keys.transpose(2, 3) / math.sqrt(keys.shape[3])).softmax(dim=-1)
        heads = F.dropout(attention, self.dropout, self.training) @ values
        update: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return update


class MLP(nn.Sequential):
    """Pre-norm two-layer perceptron on each latent."""

    def __init__(self, latent_dim: int, ratio: int) -> None:
        super().__init__(
            nn.LayerNorm(latent_dim),
            nn.Linear(latent_dim, ratio * latent_dim),
            nn.GELU(),
            nn.Linear(ratio * latent_dim, latent_dim),
        )


class SelfLayer(nn.Module):
    """One latent self-attention with its MLP."""

    def __init__(self, latent_dim: int, heads: int, dropout: float, mlp_ratio: int) -> None:
        super().__init__()
        self.attention = SelfAttention(latent_dim, heads, dropout)
        self.mlp = MLP(latent_dim, mlp_ratio)

    def forward(self, latents: Tensor) -> Tensor:
        latents = latents + self.attention(latents)
        updated: Tensor = latents + self.mlp(latents)
        return updated


class ConvolutionAdapter(nn.Module):
    """One convolution in front of the byte array, as the paper has for ImageNet (section 4.1).

    Halves every axis, rounding up; position features go on the smaller grid.
    """

    KERNEL = 7

    def __init__(self, num_channels: int, axes: int, width: int) -> None:
        super().__init__()
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.convolution = convolution(
            num_channels, width, self.KERNEL, stride=2, padding=self.KERNEL // 2
        )
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, *input_shape) -> (B, width, *halved shape)."""
        return F.gelu(self.convolution(inputs))


class Block(nn.Module):
    """One cross-attention with its MLP, then the latent self-attention layers."""

    def __init__(self, cross: CrossAttention, cross_mlp: MLP, layers: list[SelfLayer]) -> None:
        super().__init__()
        self.cross = cross
        self.cross_mlp = cross_mlp
        self.layers = nn.ModuleList(layers)

    def forward(self, latents: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B or 1, L, D), tokens (B, N, F) -> latents (B, L, D), attention (B, H, L, N)."""
        attention = self.cross.attention(latents, tokens)
        latents = latents + self.cross.read(attention, tokens)
        latents = latents + self.cross_mlp(latents)
        for layer in self.layers:
            latents = layer(latents)
        return latents, attention


class Perceiver(nn.Module):
    """Classifier for arrays of any number of axes.

    Args:
        depth: blocks, each a cross-attention and `self_per_cross_atn` self-attention layers.
        num_channels: C, channels at each position of the input.
        input_shape: lengths of the input's axes, such as (28, 28), (16000,) or (8, 32, 32).
        fourier_bands: sine and cosine pairs per axis in the position features.
        num_latents: L.
        latent_dim: D.
        latent_heads: heads of each self-attention; divides `latent_dim`.
        attn_dropout: probability of dropping an attention weight in training, in [0, 1).
        num_features: classes, the width of the output.
        self_per_cross_atn: self-attention layers in a block.
        cross_heads: heads of each cross-attention; divides `latent_dim`.
        share_weights: blocks 2 to `depth` are one block applied again and again, as in the paper.
        mlp_ratio: hidden width of each MLP in multiples of `latent_dim`.
        input_adapter: "pixels" reads every position as it is; "convolution" puts one convolution
            that halves each axis in front of the byte array (1 to 3 axes).
        adapter_channels: channels of that convolution.

    Raises:
        ValueError: an argument is impossible; the message names it.
    """

    position_features: Tensor
    token_grid: tuple[int, ...]

    def __init__(
        self,
        depth: int = 6,
        num_channels: int = 1,
        input_shape: tuple[int, ...] = (28, 28),
        fourier_bands: int = 4,
        num_latents: int = 16,
        latent_dim: int = 64,
        latent_heads: int = 8,
        attn_dropout: float = 0.0,
        num_features: int = 10,
        self_per_cross_atn: int = 4,
        *,
        cross_heads: int = 4,
        share_weights: bool = False,
        mlp_ratio: int = 4,
        input_adapter: InputAdapter = "pixels",
        adapter_channels: int = 64,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("depth", depth, 1),
            ("num_channels", num_channels, 1),
            ("fourier_bands", fourier_bands, 1),
            ("num_latents", num_latents, 1),
            ("latent_dim", latent_dim, 1),
            ("latent_heads", latent_heads, 1),
            ("num_features", num_features, 1),
            ("self_per_cross_atn", self_per_cross_atn, 0),
            ("cross_heads", cross_heads, 1),
            ("mlp_ratio", mlp_ratio, 1),
            ("adapter_channels", adapter_channels, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        for name, heads in (("latent_heads", latent_heads), ("cross_heads", cross_heads)):
            if latent_dim % heads:
                raise ValueError(f"{name} ({heads}) must divide latent_dim ({latent_dim})")
        if input_adapter not in get_args(InputAdapter):
            raise ValueError(f"input_adapter must be pixels or convolution, not {input_adapter!r}")
        if not input_shape or min(input_shape) < 1:
            raise ValueError(f"input_shape must hold positive axis lengths, not {input_shape}")
        if not 0.0 <= attn_dropout < 1.0:
            raise ValueError(f"attn_dropout must be in [0, 1), not {attn_dropout}")

        self.depth = depth
        self.num_channels = num_channels
        self.input_shape = self.token_grid = tuple(input_shape)
        token_channels = num_channels
        self.adapter: nn.Module = nn.Identity()
        if input_adapter == "convolution":
            if len(self.input_shape) > 3:
                raise ValueError("input_adapter: a convolution takes inputs of 1 to 3 axes")
            self.adapter = ConvolutionAdapter(num_channels, len(input_shape), adapter_channels)
            self.token_grid = tuple(-(-length // 2) for length in input_shape)
            token_channels = adapter_channels
        grid = position_grid(self.token_grid)
        positions = fourier_position_features(grid, self.token_grid, fourier_bands)
        self.register_buffer("position_features", positions, persistent=False)
        token_dim = token_channels + positions.shape[1]

        # Unit variance, so that LayerNorm changes little and the latents differ from the start.
        self.latents = nn.Parameter(torch.randn(num_latents, latent_dim))
        blocks = [
            Block(
                CrossAttention(latent_dim, token_dim, cross_heads, attn_dropout),
                MLP(latent_dim, mlp_ratio),
                [
                    SelfLayer(latent_dim, latent_heads, attn_dropout, mlp_ratio)
                    for _ in range(self_per_cross_atn)
                ],
            )
            for _ in range(min(depth, 2) if share_weights else depth)
        ]
        self.head = nn.Sequential(nn.LayerNorm(latent_dim), nn.Linear(latent_dim, num_features))
        for block in blocks:
            block.cross.aim(self.latents, self._gazes(cross_heads, fourier_bands, token_channels))
        self.blocks = nn.ModuleList(blocks)

    def _gazes(self, heads: int, bands: int, token_channels: int) -> Tensor:
        """Random folded queries (H, L, F): position windows, with random weights of the channels.

        The features of two places, each pair of a band's sine and cosine weighted alike, have a
        sum of cosines of their distance as dot product: weighted so that it draws a window.
        """
        axes, latents = len(self.token_grid), len(self.latents)
        gazes = []
        for head in range(heads):
            share = head / max(1, heads - 1)
            width = GAZE_WIDTHS[0] * (GAZE_WIDTHS[1] / GAZE_WIDTHS[0]) ** share
            centres = (torch.rand(latents, axes) * 2 - 1) * GAZE_SPREAD
            features = fourier_position_features(centres, self.token_grid, bands)
            weights = [_window(length, bands, width) for length in self.token_grid]
            channels = torch.randn(latents, token_channels) / math.sqrt(token_channels)
            gazes.append(torch.cat([channels, features * torch.cat(weights)], dim=1))
        return torch.stack(gazes)

    def applied_blocks(self) -> Iterator[nn.Module]:
        last = len(self.blocks) - 1
        return (self.blocks[min(index, last)] for index in range(self.depth))

    def tokens(self, inputs: Tensor) -> Tensor:
        """The byte array: (B, C, *input_shape) -> (B, N, F), channels before position features."""
        if inputs.shape[1:] != (self.num_channels, *self.input_shape):
            expected = ", ".join(map(str, ("B", self.num_channels, *self.input_shape)))
            raise ValueError(f"inputs must have shape ({expected}), not {tuple(inputs.shape)}")
        channels = self.adapter(inputs).flatten(2).transpose(1, 2)  # (B, N, C)
        positions = self.position_features.to(channels.dtype).expand(inputs.shape[0], -1, -1)
        return torch.cat([channels, positions], dim=2)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, *input_shape) -> logits (B, num_features).

        Raises:
            ValueError: `inputs` has another shape.
        """
        return self.classify(self.summaries(inputs))

    def classify(self, summaries: Tensor) -> Tensor:
        """Summaries (B, depth, D) -> logits (B, num_features); they rest on the last block's."""
        logits: Tensor = self.head(summaries[:, -1])
        return logits

    def summaries(self, inputs: Tensor) -> Tensor:
        """(B, C, *input_shape) -> mean over the latents after each block, (B, depth, D)."""
        means = [latents.mean(dim=1) for latents, _ in self._steps(inputs)]
        return torch.stack(means, dim=1)

    def forward_with_attention(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of `forward`, and where each block's latents looked.

        Returns: logits (B, num_features); cross-attention weights
        (B, depth, H, L, *token_grid), which sum to 1 over the positions.
        """
        latents, maps = zip(*self._steps(inputs), strict=True)
        logits = self.head(latents[-1].mean(dim=1))
        return logits, torch.stack(maps, dim=1).unflatten(-1, self.token_grid)

    def _steps(self, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """After each block: latents (B, L, D), cross-attention (B, H, L, N)."""
        tokens = self.tokens(inputs)
        # Not expanded to the batch: all that comes before the first read is the same for every
        # input, computed once here and folded to constants in an export.
        latents = self.latents[None]  # (1, L, D)
        for block in self.applied_blocks():
            latents, attention = block(latents, tokens)
            yield latents, attention
