"""Child processes that try inputs: a crash or a hang ends one of them, not the run."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from bench.fuzz.trials import Kind, Tally

CHUNK = 500
HANG_S = 60.0
END_S = 5.0  # that a child takes to end by itself
MAX_GROWTH_MIB = 60.0
_MAKERS = {"pictures": "Pictures", "inference": "InferenceBodies", "requests": "RequestStreams"}
_spawn = multiprocessing.get_context("spawn")


@dataclass
class Outcome:
    """What became of the inputs of one kind.

    Attributes:
        tally: of all of them.
        growth_mib: that one child grew by, from the first half of its inputs to the second.
    """

    tally: Tally = field(default_factory=Tally)
    growth_mib: float = 0.0

    def add(self, other: "Outcome") -> None:
        """Adds what became of others."""
        self.tally.add(other.tally)
        self.growth_mib = max(self.growth_mib, other.growth_mib)

    def row(self, kind: str, count: int, seconds: float) -> dict[str, object]:
        """A row of the report."""
        row: dict[str, object] = {"kind": kind, "inputs": count, "seconds": round(seconds)}
        for measure, (amount, number) in self.tally.worst.items():
            row[f"worst {measure}"] = float(f"{amount:.3g}")
            row[f"by {measure}"] = number
        return row | {"growth_mib": round(self.growth_mib), "found": len(self.tally.findings)}


class Run:
    """Inputs that are tried by one child after the other.

    Args:
        kind: of the inputs.
        numbers: of them.
    """

    def __init__(self, kind: str, numbers: range) -> None:
        self._kind = kind
        self._rest = numbers
        self._outcome = Outcome()
        self._resident: list[float] = []
        self._current: Synchronized[int] = _spawn.Value("q", -1)

    def outcome(self) -> Outcome:
        """Tries all; where a child ends, the next one goes on behind the input that ended it."""
        while self._rest:
            ours, theirs = _spawn.Pipe(duplex=False)
            given = (self._kind, self._rest, theirs, self._current)
            child = _spawn.Process(target=_try_all, args=given)
            self._current.value = -1
            child.start()
            theirs.close()
            fault = self._follow(ours)
            child.join(END_S)
            child.kill()
            child.join()
            self._note_growth()
            if fault and self._rest:
                number = max(self._current.value, self._rest[0])
                if child.exitcode != 0:  # a decoder that has kept much memory ends by itself
                    self._outcome.tally.find(number, fault(child.exitcode))
                self._rest = range(number + 1, self._rest.stop)
        return self._outcome

    def _follow(self, pipe: Connection) -> Callable[[Any], str] | None:
        """Takes what a child reports until its end; what it ended of, None where it is done."""
        last, since = -2, time.monotonic()
        while self._rest:
            if not pipe.poll(1.0):
                if self._current.value != last:
                    last, since = self._current.value, time.monotonic()
                elif time.monotonic() - since > HANG_S:
                    return lambda code: f"hangs for {HANG_S:g} s"
                continue
            try:
                tally, stop = pipe.recv()
            except EOFError:
                return lambda code: f"the process ends: {code}"
            self._outcome.tally.add(tally)
            self._resident.append(tally.resident_mib)
            self._rest = range(stop, self._rest.stop)
            told = f"{self._kind}: {len(self._rest):,} to go, {len(self._outcome.tally.findings)}"
            print(f"\r{told} found ", end="", file=sys.stderr)
        return None

    def _note_growth(self) -> None:
        sizes, self._resident = self._resident, []
        if len(sizes) < 4:
            return
        growth = max(sizes[len(sizes) // 2 :]) - max(sizes[1 : len(sizes) // 2])
        self._outcome.growth_mib = max(self._outcome.growth_mib, growth)
        if growth > MAX_GROWTH_MIB:
            self._outcome.tally.find(self._rest.start, f"memory grew by {growth:.0f} MiB up to it")


def _try_all(kind: str, numbers: range, pipe: Connection, current: "Synchronized[int]") -> None:
    """What a child does: reports the tally of each chunk, and where the next begins."""
    trial: Kind = getattr(import_module(f"bench.fuzz.{kind}"), _MAKERS[kind])()

    def on_next(number: int) -> None:
        current.value = number

    for start in range(numbers.start, numbers.stop, CHUNK):
        stop = min(numbers.stop, start + CHUNK)
        pipe.send((trial.try_all(range(start, stop), on_next), stop))
    pipe.close()
    os._exit(0)  # whatever threads may still do
