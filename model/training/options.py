"""The flags of a training run, and the presets that they start from."""

import argparse
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from model.checkpoint.card import NAME_PATTERN, VERSION_PATTERN
from model.checkpoint.config import PerceiverConfig, TrainConfig

SHIPPED_MODEL: dict[str, Any] = {
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


PRESETS: dict[str, dict[str, Any]] = {
    "mnist": {
        "model": SHIPPED_MODEL,
        "recipe": {"epochs": 80, "learning_rate": 2e-3, "ema_decay": 0.9995},
    },
    "served": {
        "start_from": Path("weights/perceiver-mnist"),
        "run_folder": Path("runs/served"),
        "model": SHIPPED_MODEL,
        "recipe": {
            "epochs": 10,
            "learning_rate": 7e-4,
            "ema_decay": 0.9995,
            "uploads": 24_000,
            "strips": 4_000,
        },
    },
    "smoke": {
        "name": "perceiver-smoke",
        "compile": False,
        "model": {"depth": 1, "self_per_cross_atn": 1, "cross_heads": 4},
        "recipe": {
            "epochs": 2,
            "batch_size": 64,
            "learning_rate": 3e-3,
            "warmup_steps": 20,
            "ema_decay": 0.98,
            "train_images": 8000,
            "validation_images": 1000,
            "outliers": 50,
        },
    },
}


def _can_compile() -> bool:
    """Whether torch.compile finds what it builds kernels with: a compiler and Python's headers."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return shutil.which("g++") is not None and headers.exists()


class TrainOptions(BaseSettings):
    """Train a Perceiver on MNIST and write a checkpoint folder."""

    model_config = SettingsConfigDict(
        cli_prog_name="perceiver train",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_shortcuts={
            f"{group}.{name}".replace("_", "-"): name.replace("_", "-")
            for group, config in (("model", PerceiverConfig), ("recipe", TrainConfig))
            for name in config.model_fields
            if name != "augment"
        },
    )

    preset: Literal["mnist", "served", "smoke"] = Field(
        "mnist",
        description="starting values: mnist; served, which goes on from there with digits as the "
        "service meets them; smoke (within a minute on 2 cores)",
    )
    data: Path | None = Field(None, description="folder of MNIST's IDX files; else downloaded")
    name: str = Field("perceiver-mnist", pattern=NAME_PATTERN, description="the checkpoint's name")
    version: str = Field(
        "1.0.0", pattern=VERSION_PATTERN, description="the checkpoint's semantic version"
    )
    out: Path | None = Field(None, description="checkpoint folder; default weights/NAME")
    run_folder: Path | None = Field(
        None, description="folder of the run's state; default runs/NAME"
    )
    start_from: Path | None = Field(
        None, description="checkpoint folder whose weights the run starts from; else random ones"
    )
    resume: bool = Field(False, description="go on with the run in the run folder")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of matrix products in training; auto: bfloat16 where it is native"
    )
    compile: bool = Field(
        default_factory=_can_compile,
        description="compile the training step; by default where a C++ compiler is at hand",
    )
    model: PerceiverConfig = PerceiverConfig()
    recipe: TrainConfig = TrainConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags alone: a variable such as MODEL or SEED in the environment is not meant for us."""
        return (init_settings,)


def parse_options(argv: Sequence[str] | None) -> TrainOptions:
    """Flags over the preset's values over the defaults."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="mnist")
    preset = first.parse_known_args(arguments)[0].preset
    return CliApp.run(TrainOptions, cli_args=arguments, **PRESETS.get(preset, {}))
