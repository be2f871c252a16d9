"""The inside of a decoder process: what is called there, within limits.

Imports nothing but what decoding takes: each process has its own.
"""

import contextlib
import gc
import os
import resource
import signal
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeVar

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
# Share of the memory that a process may keep between two calls.
MOST_KEPT = 0.25
_at_first = 0  # bytes of data of this process, before its first call


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
            prepared.append(plain(error))
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


def plain(error: InputError) -> InputError:
    """The error alone: what led to it would keep the file and its picture in memory."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


class _TimeIsOverError(BaseException):
    """The call has used all of its CPU time."""


class Result(NamedTuple, Generic[Made]):
    """What became of a call."""

    value: Made | InputError
    cpu_s: float  # CPU time that it took


def within_limits(call: Callable[[], Made], cpu_s: float, memory_bytes: int) -> Result[Made]:
    """Makes a call in this process.

    Args:
        call: to make.
        cpu_s: seconds of CPU time that it may use; where a codec does not notice that they are
            over, the process is killed.
        memory_bytes: that the process may take besides what it has at first.

    Returns: an `InputTooCostlyError` in the result's place where it uses more.
    """
    if not _at_first:
        _limit(memory_bytes)
    elif _data_bytes() > _at_first + memory_bytes * MOST_KEPT:
        os._exit(0)  # another process takes its place, and this call
    started = process_time()
    try:
        try:
            _set_timers(cpu_s, cpu_s + GRACE_S)
            return Result(call(), process_time() - started)
        finally:
            _set_timers(0, 0)
    except _TimeIsOverError:  # perhaps while the timers were set back
        _set_timers(0, 0)
        lack = f"the file takes more than {cpu_s:.2g} s of CPU time to decode"
    except InputError as error:
        return Result(plain(error), process_time() - started)
    except MemoryError:
        lack = f"the file takes more than {memory_bytes:,} bytes of memory to decode"
    except Exception:
        raise
    except BaseException as error:  # a library's panic, such as Rust's where memory is short
        lack = f"the file takes more than its decoder can bear: {type(error).__name__}"
    gc.collect()  # no buffer may stay in a cycle of references
    return Result(InputTooCostlyError(lack), process_time() - started)


def _set_timers(over_s: float, killed_s: float) -> None:
    """Sets after how much CPU time a call is over, and when it is killed; 0: never."""
    signal.setitimer(signal.ITIMER_VIRTUAL, killed_s)
    signal.setitimer(signal.ITIMER_PROF, over_s)


def _limit(memory_bytes: int) -> None:
    """Prepares this process for what strangers send."""
    global _at_first
    # Whoever stops the service closes the pipe that this process reads, when all is answered.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, _end_call)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    os.nice(NICENESS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads what codecs may print
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _at_first = _data_bytes()
    if _at_first > 1:
        with contextlib.suppress(OSError, ValueError):  # the system gives less
            most = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (_at_first + memory_bytes, most))


def _data_bytes() -> int:
    """Of this process, as RLIMIT_DATA counts them; 1 where the system does not tell."""
    try:
        with open("/proc/self/statm") as status:
            return int(status.read().split()[5]) * resource.getpagesize()
    except OSError:
        return 1


def _end_call(number: int, frame: FrameType | None) -> None:
    raise _TimeIsOverError
