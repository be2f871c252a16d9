"""The `perceiver` command: serve, predict, train, evaluate."""

import argparse
import asyncio
import importlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from app.engines import EngineError
from app.images import ImageError
from app.predictor import Prediction, load_predictor
from app.settings import Settings
from model.checkpoint import CheckpointError
from model.config import explain

COMMANDS = {
    "serve": ("answer over HTTP", "app.__main__"),
    "predict": ("print the digit in each of some image files, without a server", "app.cli"),
    "train": ("train a model and write a checkpoint folder", "model.train"),
    "evaluate": ("measure a checkpoint and compare with what its card claims", "model.evaluate"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        help_asked = arguments[:1] in (["-h"], ["--help"])
        print(_usage(), file=sys.stdout if help_asked else sys.stderr)
        return 0 if help_asked else 2
    command, rest = arguments[0], arguments[1:]
    if command == "predict":
        return predict(rest)
    try:
        module = importlib.import_module(COMMANDS[command][1])
    except ModuleNotFoundError as error:
        print(
            f"perceiver {command} needs {error.name}, which is not installed: "
            "install the extra 'train' (make train does)",
            file=sys.stderr,
        )
        return 2
    status: int = module.main(rest)
    return status


def predict(argv: Sequence[str]) -> int:
    """Prints a line per file; returns 1 where one can't be read, 2 where no model can be had."""
    parser = argparse.ArgumentParser(prog="perceiver predict", description=COMMANDS["predict"][0])
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path, help="image file")
    parser.add_argument("--weights", type=Path, help="checkpoint folder")
    options = parser.parse_args(argv)
    try:
        settings = Settings(**({"weights": options.weights} if options.weights else {}))
        outcomes = asyncio.run(_predict_files(options.files, settings))
    except ValidationError as error:
        print(f"perceiver predict: {explain(error)}", file=sys.stderr)
        return 2
    except (CheckpointError, EngineError) as error:
        print(f"perceiver predict: {error}", file=sys.stderr)
        return 2
    failed = False
    for path, outcome in zip(options.files, outcomes, strict=True):
        if isinstance(outcome, Prediction):
            print(f"{outcome.label}  {outcome.confidence:7.2%}  {path}")
        else:
            failed = True
            print(f"perceiver predict: {path}: {outcome}", file=sys.stderr)
    return 1 if failed else 0


async def _predict_files(
    paths: Sequence[Path], settings: Settings
) -> list[Prediction | ImageError | EngineError | OSError]:
    predictor = load_predictor(settings)
    outcomes: list[Prediction | ImageError | EngineError | OSError] = []
    for path in paths:
        try:
            outcomes.append(await predictor.predict(path.read_bytes(), deadline=math.inf))
        except (ImageError, EngineError, OSError) as error:
            outcomes.append(error)
    await predictor.close()
    return outcomes


def _usage() -> str:
    lines = [f"  {name:<9} {purpose}" for name, (purpose, _) in COMMANDS.items()]
    return "\n".join(["usage: perceiver COMMAND ...", "", *lines, "", "perceiver COMMAND --help"])
