"""The inside of a decoder process: what is called there, within limits.

Imports nothing but what decoding takes: each process has its own.
"""

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Sequence
from time import perf_counter
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from model.checkpoint.card import InputSpec
from model.modalities import (
    FindParts,
    FoundParts,
    InputError,
    InputTooCostlyError,
    Limits,
    find,
)

Made = TypeVar("Made")

# Where cores are short the event loop and the engine get three times a decoder's share.
NICENESS = 5
# A codec that does not return to Python so soon after its time is over is killed.
GRACE_S = 0.5
_limited = False


class Prepared(NamedTuple):
    """A file in the input's form."""

    values: NDArray[Any]  # (C, *shape)
    decode_s: float
    preprocess_s: float


def prepare(
    modality: str, spec: InputSpec, limits: Limits, contents: Sequence[bytes]
) -> list[Prepared | InputError]:
    """Files in the input's form; one that can't be read has its error in its place."""
    form = find(modality)
    prepared: list[Prepared | InputError] = []
    for content in contents:
        started = perf_counter()
        try:
            sample = form.decode(content, limits)
        except InputError as error:
            prepared.append(error)
            continue
        decoded = perf_counter()
        values = form.prepare(sample, spec)
        prepared.append(Prepared(values, decoded - started, perf_counter() - decoded))
    return prepared


def found_in(find_parts: FindParts, limits: Limits, content: bytes) -> FoundParts:
    """What may be parts of a file's sample.

    Raises:
        InputError: the bytes can't be read, or show more parts than are looked for.
    """
    return find_parts(content, limits)


class _TimeIsOverError(BaseException):
    """The call has used all of its CPU time."""


def within_limits(call: Callable[[], Made], cpu_s: float, memory_bytes: int) -> Made:
    """Makes a call in this process.

    Args:
        call: to make.
        cpu_s: seconds of CPU time that it may use; where a codec does not notice that they are
            over, the process is killed.
        memory_bytes: that the process may take besides what it has at first.

    Raises:
        InputTooCostlyError: it uses more.
    """
    if not _limited:
        _limit(memory_bytes)
    try:
        try:
            _set_timers(cpu_s, cpu_s + GRACE_S)
            return call()
        finally:
            _set_timers(0, 0)
    except _TimeIsOverError:  # perhaps while the timers were set back
        _set_timers(0, 0)
        lack = f"the file takes more than {cpu_s:g} s of CPU time to decode"
    except MemoryError:
        lack = f"the file takes more than {memory_bytes:,} bytes of memory to decode"
    raise InputTooCostlyError(lack)


def _set_timers(over_s: float, killed_s: float) -> None:
    """Sets after how much CPU time a call is over, and when it is killed; 0: never."""
    signal.setitimer(signal.ITIMER_VIRTUAL, killed_s)
    signal.setitimer(signal.ITIMER_PROF, over_s)


def _limit(memory_bytes: int) -> None:
    """Prepares this process for what strangers send."""
    global _limited
    _limited = True
    # Whoever stops the service closes the pipe that this process reads, when all is answered.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, _end_call)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    os.nice(NICENESS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads what codecs may print
    with contextlib.suppress(OSError, ValueError):  # a system without /proc, or with less to give
        with open("/proc/self/status") as status:
            taken = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + memory_bytes, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_call(number: int, frame: FrameType | None) -> None:
    raise _TimeIsOverError
