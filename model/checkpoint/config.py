"""What a Perceiver is and how it is trained, as validated data.

Both stand in each checkpoint's card. What only one modality knows stands in options of its own.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Frozen(BaseModel):
    """Validated data that stays as it was made, without further fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PerceiverConfig(Frozen):
    """Arguments of `model.network.perceiver.Perceiver`; see there for their meaning."""

    depth: int = Field(6, ge=1, le=64, description="cross-attention blocks")
    num_channels: int = Field(1, ge=1, description="channels at each position of the input")
    input_shape: tuple[int, ...] = Field((28, 28), min_length=1, description="axis lengths")
    fourier_bands: int = Field(4, ge=1, le=256, description="Fourier bands per axis")
    num_latents: int = Field(16, ge=1, description="latents")
    latent_dim: int = Field(64, ge=1, description="width of a latent")
    latent_heads: int = Field(8, ge=1, description="heads of each self-attention")
    attn_dropout: float = Field(0.0, ge=0, lt=1, description="dropped attention weights")
    num_features: int = Field(10, ge=1, description="classes")
    self_per_cross_atn: int = Field(4, ge=0, description="self-attention layers per block")
    cross_heads: int = Field(4, ge=1, description="heads of each cross-attention")
    share_weights: bool = Field(False, description="blocks 2 to depth share their weights")
    mlp_ratio: int = Field(4, ge=1, description="hidden width of an MLP over latent_dim")
    input_adapter: Literal["pixels", "convolution"] = Field(
        "pixels", description="what the byte array holds: single pixels, or a convolution's output"
    )
    adapter_channels: int = Field(64, ge=1, description="channels of that convolution")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "PerceiverConfig":
        for name in ("latent_heads", "cross_heads"):
            if self.latent_dim % getattr(self, name):
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must divide latent_dim ({self.latent_dim})"
                )
        return self

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `Perceiver`."""
        return dict(self)


class TrainConfig(Frozen):
    """The recipe of a training run, of any modality."""

    epochs: int = Field(40, ge=1, description="passes over the training samples")
    batch_size: int = Field(128, ge=1, description="samples per step, over all processes")
    learning_rate: float = Field(1.5e-3, gt=0, description="AdamW's peak learning rate")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's decay of weight matrices")
    warmup_steps: int = Field(300, ge=0, description="steps of linear warm-up before the cosine")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="mass spread over all classes")
    gradient_clip: float = Field(1.0, gt=0, description="largest norm of the whole gradient")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay per step of averaged weights")
    validation_samples: int = Field(
        5000, ge=1, description="training samples held out for choosing"
    )
    train_samples: int | None = Field(None, ge=1, description="use only so many training samples")
    seed: int = Field(
        0, ge=0, lt=2**32, description="of split, weights, order, augmentation and dropout"
    )


def validation_sentence(error: ValidationError) -> str:
    """One sentence that names each wrong field and what is wrong with it."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or error.title}: {problem['msg']}"
        for problem in error.errors()
    )
