"""`perceiver serve`: serves until SIGTERM or Ctrl+C, which end it with exit code 0."""

import gc

# Nothing that is made during the start is garbage, and to look for some again and again takes
# 0.08 s. The service switches this on again when it is ready.
gc.disable()

import os

# NumPy's products here are small: with threads of their own, which wait in a loop for each other,
# a number took five times the CPU to read on two busy cores. NumPy asks when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from app.streams import open_missing

open_missing()  # before anything else opens a file or a socket that stays

import contextlib
import logging.config
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.gate.keys import Keys, KeysError
from app.gate.reload import Release
from app.inference.engines import EngineError, choose_engine
from app.server.supervisor import Supervisor
from app.server.worker import FAILURE, serve
from app.settings import Settings, unknown_variables
from app.telemetry.logs import configuration
from model.checkpoint.config import validation_sentence
from model.checkpoint.folder import CheckpointError, read_checkpoint

SAMPLE = Path(__file__).parent / "samples" / "7.png"
BAD_USAGE = 2

logger = logging.getLogger("app.settings")


def main(argv: Sequence[str] | None = None) -> int:
    """Serves with the settings of the environment and the flags.

    Args:
        argv: flags; by default those of this process.

    Returns: the process's exit code: 0 after a stop by a signal, 1 when the service can't start, 2
    for a bad setting.
    """
    try:
        settings = Settings(_cli_parse_args=sys.argv[1:] if argv is None else list(argv))
        keys = Keys.read(settings)
    except ValidationError as error:
        return _fail(validation_sentence(error), BAD_USAGE)
    except (SettingsError, KeysError) as error:
        return _fail(str(error), BAD_USAGE)
    _warn_of_unknown_variables(settings)
    try:
        release = Release(read_checkpoint(settings.weights), keys)
        engine, device = choose_engine(settings.engine, settings.device)
        listener = _bind(settings.host, settings.port)
    except (CheckpointError, EngineError) as error:
        return _fail(str(error), FAILURE)
    except OSError as error:
        return _fail(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}", FAILURE)
    url = _url(listener)
    card = release.checkpoint.card
    greeting = f"""
{card.name} {card.version} is ready: {engine} on {device}.

  Draw       {url}/
  Try it     curl -F file=@{_sample()} {url}/predict
  API        {url}/docs
  Model      {url}/metadata

Ctrl+C stops it.
"""

    def greet() -> None:
        _say(greeting, sys.stdout)

    # Until someone listens for it: nothing is in flight yet.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        if settings.workers == 1:
            return serve(settings, release, listener, greet)
        gc.enable()
        # In memory where the system has such a folder: no disk is waited for, or full.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="perceiver-", dir=memory) as folder:
            return Supervisor(settings, release, listener, greet, Path(folder)).run()
    except KeyboardInterrupt:
        return 0
    except FileNotFoundError as error:
        return _fail(f"several workers need a temporary folder: {error.strerror}", FAILURE)
    except OSError as error:  # the port was taken between binding and listening
        return _fail(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}", FAILURE)


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket; a worker makes it listen when it is ready."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _sample() -> str:
    path = SAMPLE.relative_to(Path.cwd()) if SAMPLE.is_relative_to(Path.cwd()) else SAMPLE
    return shlex.quote(str(path))


def _warn_of_unknown_variables(settings: Settings) -> None:
    warnings = unknown_variables(os.environ)
    if warnings:
        logging.config.dictConfig(configuration(settings.log_format))
    for warning in warnings:
        logger.warning("%s", warning)


def _fail(sentence: str, code: int) -> int:
    _say(f"perceiver: {sentence}\n", sys.stderr)
    return code


def _say(text: str, stream: TextIO) -> None:
    """Writes at once, and goes on where nobody reads it or the disk is full."""
    with contextlib.suppress(OSError):
        os.write(stream.fileno(), text.encode(errors="backslashreplace"))
