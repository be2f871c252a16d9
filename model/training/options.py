"""The flags of a training run, and the presets that they start from."""

import argparse
import shutil
import sysconfig
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, create_model
from pydantic_settings import BaseSettings, CliApp, PydanticBaseSettingsSource, SettingsConfigDict

from model.checkpoint.card import NAME_PATTERN, VERSION_PATTERN
from model.checkpoint.config import PerceiverConfig, TrainConfig
from model.errors import UserError
from model.modalities import MODALITIES, find
from model.modalities.training import Options


class Command(BaseSettings):
    """A command of the command line: its fields are its flags."""

    model_config = SettingsConfigDict(
        cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True, cli_avoid_json=True
    )

    stopped: ClassVar[str] = "Stopped."  # what Ctrl-C answers

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, *args: Any, **others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags alone: a variable such as MODEL or SEED in the environment is not meant for us."""
        return (init_settings,)

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Command":
        """The command with these flags.

        Raises:
            ValidationError: a flag has a value that it may not have.
            SystemExit: help was asked for, or a flag is unknown.
        """
        return CliApp.run(cls, cli_args=list(arguments))

    @abstractmethod
    def run(self) -> int:
        """Does the work; returns the exit code.

        Raises:
            UserError: it can't be done; the message says why.
        """


def can_compile() -> bool:
    """Whether torch.compile finds what it builds kernels with: a compiler and Python's headers."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return shutil.which("g++") is not None and headers.exists()


class Train(Command, cli_prog_name="perceiver train"):
    """Trains a Perceiver and writes a checkpoint folder."""

    stopped: ClassVar[str] = "Stopped. Whole epochs are kept: go on with --resume."

    modality: str = Field(MODALITIES[0], description="kind of input")
    preset: str = Field("", description="starting values")
    data: Path | None = Field(None, description="folder of the data set; else downloaded")
    name: str = Field("perceiver", pattern=NAME_PATTERN, description="the checkpoint's name")
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
        default_factory=can_compile,
        description="compile the training step; by default where a C++ compiler is at hand",
    )
    model: PerceiverConfig = PerceiverConfig()
    recipe: TrainConfig = TrainConfig()
    options: Options = Options()

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Train":
        """Flags over the preset's values over the defaults; the modality adds flags of its own.

        Raises:
            UserError: there is no such modality.
        """
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--modality", default=MODALITIES[0])
        first.add_argument("--preset")
        chosen = first.parse_known_args(arguments)[0]
        try:
            flags = find(chosen.modality).flags()
        except KeyError as error:
            raise UserError(error.args[0]) from None
        presets = flags.presets
        preset = next(iter(presets)) if chosen.preset is None else chosen.preset
        names: Any = Literal
        told = "; ".join(f"{name}: {known.description}" for name, known in presets.items())
        shortcuts = {
            f"{group}.{flag}": flag
            for group, config in (
                ("model", PerceiverConfig),
                ("recipe", TrainConfig),
                ("options", flags.options),
            )
            for flag in _flags(config)
        }
        command = create_model(
            "Train",
            __base__=cls,
            __doc__=cls.__doc__,
            __cls_kwargs__={"cli_shortcuts": shortcuts},
            preset=(names[tuple(presets)], Field(preset, description=f"starting values; {told}")),
            options=(flags.options, flags.options()),
        )
        values = presets[preset].values if preset in presets else {}
        return CliApp.run(command, cli_args=list(arguments), **values)

    def run(self) -> int:
        """Runs or resumes the training to its end."""
        from model.training.train import train

        train(self)
        return 0


def _flags(config: type[BaseModel]) -> Iterator[str]:
    """The flags of a configuration's fields; those of a configuration within it have a dot."""
    for name, field in config.model_fields.items():
        flag = name.replace("_", "-")
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from (f"{flag}.{rest}" for rest in _flags(inner))
        else:
            yield flag
