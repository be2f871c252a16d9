"""The inside of a decoder process: work within limits, that nobody needs to wait for.

Imports nothing but what decoding takes: each process has its own.
"""

import contextlib
import os
import resource
import signal
from collections.abc import Callable
from typing import TypeVar

from model.modalities import InputTooCostlyError

Made = TypeVar("Made")

# Where cores are short the event loop and the engine get three times a decoder's share.
NICENESS = 5
_limited = False


def within_limits(call: Callable[[], Made], cpu_s: float, memory_bytes: int) -> Made:
    """Makes a call in this process, which ends where that takes too much CPU time.

    Args:
        call: to make.
        cpu_s: seconds of CPU time; then SIGPROF kills the process.
        memory_bytes: that the process may take besides what it has at first.

    Raises:
        InputTooCostlyError: it needs more memory.
    """
    if not _limited:
        _limit(memory_bytes)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        return call()
    except MemoryError:
        raise InputTooCostlyError(
            f"to decode the file takes more than {memory_bytes:,} bytes of memory"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit(memory_bytes: int) -> None:
    """Prepares this process for what strangers send."""
    global _limited
    _limited = True
    # Whoever stops the service closes the pipe that this process reads, when all is answered.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    os.nice(NICENESS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads what codecs may print
    with contextlib.suppress(OSError, ValueError):  # a system without /proc, or with less to give
        with open("/proc/self/status") as status:
            taken = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
        limit = taken * 1024 + memory_bytes
        resource.setrlimit(
            resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
