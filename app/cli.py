"""The `perceiver` command: serve, predict, train, evaluate."""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "serve": ("answer over HTTP", "app.__main__"),
    "predict": ("print the digit in each of some image files", "app.predict_command"),
    "train": ("train a model and write a checkpoint folder", "model.training.train"),
    "evaluate": (
        "measure a checkpoint and compare with what its card claims",
        "model.evaluation.evaluate",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        help_asked = arguments[:1] in (["-h"], ["--help"])
        print(_usage(), file=sys.stdout if help_asked else sys.stderr)
        return 0 if help_asked else 2
    command, rest = arguments[0], arguments[1:]
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


def _usage() -> str:
    lines = [f"  {name:<9} {purpose}" for name, (purpose, _) in COMMANDS.items()]
    return "\n".join(["usage: perceiver COMMAND ...", "", *lines, "", "perceiver COMMAND --help"])
