"""Proves a checkpoint in a process of its own: one that crashes or hangs its runtime harms nobody.

What that process may take is bounded in time and memory; whatever becomes of it but a "good" is bad
news.
"""

import contextlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

from app.inference.engines import EngineError, choose_engine
from app.inference.models import Model
from app.inference.predictor import load_predictor
from app.settings import Settings
from model.checkpoint.folder import Checkpoint, CheckpointError

LIMIT_S = 60.0
# Of memory, in bytes: for a runtime, for each sample of the largest batch, and for copies of the
# weights and graphs.
RUNTIME_BYTES = 2**30
SAMPLE_BYTES = 2**20
COPIES = 8
# The processes that serve go first.
NICENESS = 5


def prove_apart(settings: Settings, checkpoint: Checkpoint) -> None:
    """Returns when another process has loaded a checkpoint and computed with all that is in it.

    Takes a second or more, so it is not for the event loop.

    Args:
        settings: of the service.
        checkpoint: to be proved.

    Raises:
        CheckpointError, EngineError: it can't be used, or the process died or was too late.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", "from app.inference.proof import main; main()"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(LIMIT_S, end)
    timer.daemon = True
    timer.start()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with contextlib.suppress(OSError):  # it has died
            pickle.dump((settings, checkpoint), process.stdin)
            process.stdin.flush()
        reply = process.stdout.read()
        process.kill()  # it has said all, or closed its side for good
        code = process.wait()
    finally:
        timer.cancel()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
    if late.is_set():
        raise EngineError(f"{checkpoint.folder} was not proved within {LIMIT_S:.0f} s")
    try:
        faults: list[str] = json.loads(reply)
    except ValueError:
        raise EngineError(f"to prove {checkpoint.folder} ended its process {_how(code)}") from None
    if faults:
        raise CheckpointError("; ".join(faults))


def main() -> None:
    """Proves what comes on standard input; says on standard output what is wrong with it."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a runtime's words are none
    settings, checkpoint = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _take_no_more_than(settings, checkpoint)
    try:
        faults = Model(load_predictor(settings, checkpoint)).prove_rest()
    except Exception as error:
        faults = [str(error) or repr(error)]
    json.dump(faults, replies)
    replies.flush()
    os._exit(0)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _take_no_more_than(settings: Settings, checkpoint: Checkpoint) -> None:
    """Bounds what this process may take, as far as the system has such bounds."""
    os.nice(NICENESS)
    signal.alarm(int(LIMIT_S) + 1)  # ends it even where its parent is gone
    with contextlib.suppress(OSError):  # short of memory, the system is to end this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if choose_engine(settings.engine, settings.device)[0] == "torch":
        return  # CUDA maps more than it takes
    size = len(checkpoint.weights) + len(checkpoint.onnx)
    limit = RUNTIME_BYTES + settings.max_batch * SAMPLE_BYTES + COPIES * size
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _how(code: int) -> str:
    if code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with {code}"
