"""`python -m app`: serves until SIGTERM or Ctrl+C, which end it with exit code 0."""

import functools
import math
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError
from uvicorn.supervisors import Multiprocess

from app.engines import EngineError, choose_engine
from app.main import create_app
from app.observability import LOGGING
from app.settings import Settings
from model.checkpoint import CheckpointError, read_checkpoint
from model.config import explain

SAMPLE = Path(__file__).parent / "samples" / "7.png"
BAD_USAGE = 2
FAILURE = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Serves with the settings of the environment and the flags.

    Args:
        argv: flags; by default those of this process.

    Returns: the process's exit code: 0 after a stop by a signal, 1 when the service can't start, 2
    for a bad setting.
    """
    try:
        settings = Settings(_cli_parse_args=sys.argv[1:] if argv is None else list(argv))
    except ValidationError as error:
        return _fail(explain(error), BAD_USAGE)
    except SettingsError as error:
        return _fail(str(error), BAD_USAGE)
    try:
        checkpoint = read_checkpoint(settings.weights)
        engine, device = choose_engine(settings.engine, settings.device)
        listener = _bind(settings.host, settings.port)
    except (CheckpointError, EngineError) as error:
        return _fail(str(error), FAILURE)
    except OSError as error:
        return _fail(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}", FAILURE)
    url = _url(listener)
    card = checkpoint.card
    greeting = f"""
{card.name} {card.version} is ready: {engine} on {device}.

  Draw       {url}/
  Try it     curl -F file=@{_sample()} {url}/predict
  API        {url}/docs
  Model      {url}/metadata

Ctrl+C stops it.
"""
    threading.Thread(target=_greet, args=(listener, greeting), daemon=True).start()
    return _serve(settings, listener)


def _serve(settings: Settings, listener: socket.socket) -> int:
    config = uvicorn.Config(
        functools.partial(create_app, settings),
        factory=True,
        workers=settings.workers,
        lifespan="on",
        log_config=LOGGING,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.request_timeout_s) + 1,
    )
    # uvicorn stops gracefully, then raises the signal once more for whom it was before.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        if settings.workers == 1:
            uvicorn.Server(config).run([listener])
            return 0
        supervisor = Multiprocess(config, [listener])
        supervisor.run()
        return FAILURE if any(process.exitcode == 3 for process in supervisor.processes) else 0
    except KeyboardInterrupt:
        return 0
    except SystemExit as stop:  # a termination, or uvicorn's 3 where the start failed
        return FAILURE if stop.code else 0
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


def _greet(listener: socket.socket, greeting: str) -> None:
    """Prints the greeting once a worker accepts connections."""
    family, address = listener.family, listener.getsockname()
    while True:
        with socket.socket(family) as probe:
            if probe.connect_ex(address) == 0:
                break
        time.sleep(0.02)
    print(greeting, flush=True)


def _fail(sentence: str, code: int) -> int:
    print(f"perceiver: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
