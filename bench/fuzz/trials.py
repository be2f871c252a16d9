"""What inputs cost, what is found, and what SECURITY.md promises of both."""

import asyncio
import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

# Less CPU time than this takes so little memory that it is not worth to look.
NEGLIGIBLE_S = 0.003
_MEASURES = ("cpu_s", "mib", "pause_s")


@dataclass(frozen=True)
class Promise:
    """The most that one input may cost.

    Attributes:
        cpu_s: seconds of CPU time.
        mib: memory above what the process has before, in MiB.
        pause_s: CPU seconds for which the event loop answers nobody else.
    """

    cpu_s: float
    mib: float
    pause_s: float


PROMISES = {
    # Of the pauses: by what the service itself takes for so little that it needs no decoder.
    "pictures": Promise(cpu_s=2.0, mib=300.0, pause_s=0.05),
    "inference": Promise(cpu_s=2.0, mib=300.0, pause_s=0.3),
    "requests": Promise(cpu_s=2.0, mib=300.0, pause_s=0.3),
}


@dataclass
class Tally:
    """What became of some inputs.

    Attributes:
        outcomes: name -> inputs.
        worst: measure -> the most that one took, and its number.
        findings: number and what is wrong with it.
        resident_mib: of the process in the end.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    worst: dict[str, tuple[float, int]] = field(
        default_factory=lambda: dict.fromkeys(_MEASURES, (0.0, 0))
    )
    findings: list[tuple[int, str]] = field(default_factory=list)
    resident_mib: float = 0.0

    def add(self, other: "Tally") -> None:
        """Adds what became of others."""
        self.outcomes.update(other.outcomes)
        for measure, value in other.worst.items():
            self.worst[measure] = max(self.worst[measure], value)
        self.findings += other.findings

    def cost(self, number: int, promise: Promise, **taken: float) -> None:
        """Notes what an input took, by measure; more than promised is a finding."""
        for measure, amount in taken.items():
            self.worst[measure] = max(self.worst[measure], (amount, number))
            limit = getattr(promise, measure)
            if amount > limit:
                self.find(number, f"{measure} {amount:.3g}, more than {limit:g}")

    def find(self, number: int, what: str) -> None:
        """Notes a finding."""
        self.findings.append((number, what))


class Kind(Protocol):
    """Inputs of one kind."""

    def try_all(self, numbers: range, on_next: Callable[[int], None]) -> Tally:
        """Tries the inputs of these numbers.

        Args:
            numbers: of the inputs.
            on_next: called with each number before it is tried.
        """
        ...


class Meter:
    """CPU time and memory of this process for one input after the other."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._base = _kib("VmRSS")
        _forget_peak()
        self._ended = time.process_time()

    @contextmanager
    def measure(self) -> Iterator[dict[str, float]]:
        """Fills in `cpu_s` and `mib` of what is done within."""
        taken: dict[str, float] = {}
        if time.process_time() - self._ended > NEGLIGIBLE_S:  # what made the input is not its cost
            self._begin()
        begun = time.process_time()
        try:
            yield taken
        finally:
            taken["cpu_s"] = time.process_time() - begun
            taken["mib"] = 0.0
            if taken["cpu_s"] > NEGLIGIBLE_S:
                taken["mib"] = max(0, _kib("VmHWM") - self._base) / 1024
                self._begin()
            self._ended = time.process_time()


def resident_mib() -> float:
    """Memory of this process."""
    return _kib("VmRSS") / 1024


def _kib(name: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))


def _forget_peak() -> None:
    """From now on VmHWM is the peak of what comes."""
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class PauseWatch:
    """How long the event loop answers nobody, in CPU time: a busy machine is no finding."""

    _STEP_S = 0.002
    _OF_NOTE_S = 0.05

    def __init__(self) -> None:
        self._worst = 0.0

    async def run(self) -> None:
        """Watches for ever."""
        while True:
            wall, cpu = time.perf_counter(), time.process_time()
            await asyncio.sleep(self._STEP_S)
            pause = min(time.perf_counter() - wall, time.process_time() - cpu)
            self._worst = max(self._worst, pause)

    async def pause_s(self, cpu_s: float) -> float:
        """The longest pause since this was called last, at most so long."""
        if cpu_s > self._OF_NOTE_S:  # or the pause can't have been long
            await asyncio.sleep(2 * self._STEP_S)
            cpu_s = min(cpu_s, self._worst)
        self._worst = 0.0
        return cpu_s


class ErrorLog(logging.Handler):
    """Collects what the service logs as an error, instead of anything that it would print."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lines: list[str] = []
        root = logging.getLogger()
        root.handlers = [self]
        root.setLevel(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._lines.append(
            f"{record.getMessage()}: {where(error)}" if error else record.getMessage()
        )

    def take(self) -> list[str]:
        """The lines since this was called last."""
        lines, self._lines = self._lines, []
        return lines


def where(error: BaseException) -> str:
    """An error, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename][-1:]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in own + frames[-1:]]
    return f"{error!r:.200} ({', '.join(places)})"
