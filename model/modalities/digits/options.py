"""What the recipe of a model of digits has beyond that of any model, and its presets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from model.modalities.training import Options, Preset, TrainingFlags, WarpRanges


class AugmentRanges(WarpRanges):
    """How far training digits are changed: warped, drawn with another pen, damaged."""

    stroke_width: float = Field(0.5, ge=0, le=1, description="pixels on either side of a stroke")
    distorted: float = Field(0.3, ge=0, le=1, description="part of the images that is damaged")


class DigitOptions(Options):
    """What the recipe of a model of digits has beyond that of any model."""

    uploads: int = Field(
        0, ge=0, description="training digits also shown as they come out of the upload path"
    )
    strips: int = Field(
        0, ge=0, description="numbers of training digits whose digits are also shown as cut out"
    )
    outliers: int = Field(
        1000, ge=1, description="pictures of each kind without a digit, for the novelty head"
    )
    augment: AugmentRanges = AugmentRanges()


SHIPPED_MODEL: Mapping[str, Any] = {
    "depth": 2,
    "fourier_bands": 6,
    "num_latents": 8,
    "latent_dim": 192,
    "self_per_cross_atn": 1,
    "cross_heads": 16,
    "mlp_ratio": 2,
    "input_adapter": "convolution",
    "adapter_channels": 64,
}

PRESETS: Mapping[str, Preset] = {
    "mnist": Preset(
        "the shipped model's first training",
        {
            "name": "perceiver-mnist",
            "model": SHIPPED_MODEL,
            "recipe": {"epochs": 80, "learning_rate": 2e-3, "ema_decay": 0.9995},
        },
    ),
    "served": Preset(
        "which goes on from there with digits as the service meets them",
        {
            "name": "perceiver-mnist",
            "start_from": Path("weights/perceiver-mnist"),
            "run_folder": Path("runs/served"),
            "model": SHIPPED_MODEL,
            "recipe": {"epochs": 10, "learning_rate": 7e-4, "ema_decay": 0.9995},
            "options": {"uploads": 24_000, "strips": 4_000},
        },
    ),
    "smoke": Preset(
        "within a minute on 2 cores",
        {
            "name": "perceiver-smoke",
            "compile": False,
            "model": {"depth": 1, "self_per_cross_atn": 1, "cross_heads": 4},
            "recipe": {
                "epochs": 2,
                "batch_size": 64,
                "learning_rate": 3e-3,
                "warmup_steps": 20,
                "ema_decay": 0.98,
                "train_samples": 8000,
                "validation_samples": 1000,
            },
            "options": {"outliers": 50},
        },
    ),
}

FLAGS = TrainingFlags(DigitOptions, PRESETS)
