"""The `perceiver` command: `serve` and `predict`, and the offline commands of `model`."""

import importlib
import sys
from collections.abc import Sequence

from app.streams import open_missing

COMMANDS = {
    "serve": ("Answers over HTTP.", "app.serve_command"),
    "predict": ("Prints the label of each of some image files.", "app.predict_command"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns the exit code."""
    open_missing()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        module = importlib.import_module(COMMANDS[arguments[0]][1])
        status: int = module.main(arguments[1:])
        return status
    from model import __main__ as model

    if arguments and arguments[0] in model.COMMANDS:
        return model.main(arguments)
    own = {name: purpose for name, (purpose, _) in COMMANDS.items()}
    return model.usage("perceiver", own | model.PURPOSES, arguments)
