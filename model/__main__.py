"""The offline commands: `python -m model COMMAND`, also as `perceiver COMMAND`.

What computes is imported by the command that runs, so that help comes at once.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import CliPositionalArg

from model.checkpoint.card import VERSION_PATTERN
from model.checkpoint.config import validation_sentence
from model.errors import UserError
from model.training.options import Command, Train

DONE, CLAIMS_BROKEN, FAILED, STOPPED = 0, 1, 2, 130


class Evaluate(Command, cli_prog_name="perceiver evaluate"):
    """Measures a checkpoint and compares with what its card claims."""

    checkpoint: CliPositionalArg[Path] = Field(description="checkpoint folder")
    data: Path | None = Field(None, description="folder of the data set; else downloaded")
    part: Literal["test", "validation"] = Field("test", description="part of the data set")
    suite: str | None = Field(None, description="figures beyond a part's; an unknown one lists all")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    out: Path | None = Field(
        None, description="JSON file; default runs/evaluation-NAME-PART.json, or -SUITE"
    )

    def run(self) -> int:
        """Returns 1 where the card's claims do not hold."""
        from model.evaluation.evaluate import evaluate

        holds = evaluate(self.checkpoint, self.data, self.part, self.suite, self.device, self.out)
        return DONE if holds else CLAIMS_BROKEN


class Export(Command, cli_prog_name="perceiver export"):
    """Makes a checkpoint's ONNX graphs anew from its weights."""

    checkpoint: CliPositionalArg[Path] = Field(description="checkpoint folder")

    def run(self) -> int:
        """Prints the graphs' sizes."""
        from model.training.export import export

        for name, content in export(self.checkpoint).items():
            if name.endswith(".onnx"):
                print(f"{len(content):>10,} bytes  {self.checkpoint / name}")
        return DONE


class Finish(Command, cli_prog_name="perceiver finish"):
    """Calibrates, scores, exports and draws a checkpoint anew; its weights stay."""

    checkpoint: CliPositionalArg[Path] = Field(description="checkpoint folder")
    data: Path | None = Field(None, description="folder of the data set; else downloaded")
    version: str = Field(
        pattern=VERSION_PATTERN, description="the checkpoint's new semantic version"
    )

    def run(self) -> int:
        """Prints the figures of the test set."""
        from model.evaluation.scores import table
        from model.training.finish import refinish

        card = refinish(self.checkpoint, self.data, self.version)
        print(f"{card.name} {card.version}\n\n{table(card.metrics['test'])}")
        return DONE


class FitParts(Command, cli_prog_name="perceiver fit-parts"):
    """Teaches a checkpoint to find the parts of a sample, such as the digits of a number."""

    checkpoint: CliPositionalArg[Path] = Field(description="checkpoint folder")
    data: Path | None = Field(None, description="folder of the data set; else downloaded")
    seed: int = Field(0, ge=0, lt=2**32, description="of all that is random")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")

    def run(self) -> int:
        """Prints how well it finds them."""
        from model.training.finish import fit_parts

        fit_parts(self.checkpoint, self.data, self.seed, self.device)
        return DONE


class Flops(Command, cli_prog_name="perceiver flops"):
    """Tells what a checkpoint costs to compute."""

    checkpoint: CliPositionalArg[Path] = Field(description="checkpoint folder")

    def run(self) -> int:
        """Prints operations and parameters."""
        from model.checkpoint.folder import read_checkpoint
        from model.network.flops import count_flops
        from model.network.recognizer import load_perceiver

        checkpoint = read_checkpoint(self.checkpoint)
        card, flops = checkpoint.card, count_flops(load_perceiver(checkpoint))
        print(
            f"{card.name} {card.version}: {flops / 1e6:.1f} MFLOP per sample, "
            f"{card.parameters:,} parameters"
        )
        return DONE


COMMANDS: Mapping[str, type[Command]] = {
    "train": Train,
    "evaluate": Evaluate,
    "export": Export,
    "finish": Finish,
    "fit-parts": FitParts,
    "flops": Flops,
}
PURPOSES = {name: str(command.__doc__) for name, command in COMMANDS.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns the exit code.

    0 done, 1 the card's claims do not hold, 2 nothing could run, 130 stopped by Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        return usage("python -m model", PURPOSES, arguments)
    name, rest = arguments[0], arguments[1:]
    command = COMMANDS[name]
    try:
        return command.parse(rest).run()
    except ValidationError as error:
        sentence = validation_sentence(error)
    except UserError as error:
        sentence = str(error)
    except ModuleNotFoundError as error:
        sentence = f"{error.name} is not installed: pip install '.[train]' brings it"
    except KeyboardInterrupt:
        print(f"\n{command.stopped}", file=sys.stderr)
        return STOPPED
    print(f"perceiver {name}: {sentence}", file=sys.stderr)
    return FAILED


def usage(program: str, purposes: Mapping[str, str], arguments: Sequence[str]) -> int:
    """Lists the commands: as help where that was asked for, else because there is no such one."""
    asked = arguments[:1] in (["-h"], ["--help"])
    lines = [f"  {name:<10} {purpose}" for name, purpose in purposes.items()]
    text = [f"usage: {program} COMMAND ...", "", *lines, "", f"{program} COMMAND --help"]
    print("\n".join(text), file=sys.stdout if asked else sys.stderr)
    return DONE if asked else FAILED


if __name__ == "__main__":
    sys.exit(main())
