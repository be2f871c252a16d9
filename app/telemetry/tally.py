"""Numbers that a worker counts, where the other workers can read them.

A number is a float64 in an array that each worker has for its own, so that counting costs one
addition. Beside the array stands a list that tells whose each place in it is. Both are files where
workers share: one that dies leaves its counts there, and the one that takes its place goes on with
them. A lock on the array, which the system drops with its owner, tells who lives.
"""

import itertools
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Key = tuple[str, tuple[str, ...]]  # metric and label values

_NUMBERS = 32 * 1024  # several times what all routes, methods and statuses take
_BYTES = _NUMBERS * 8
_PID = 0  # index of the owner's process id
_FIRST = 1


@dataclass(frozen=True)
class Snapshot:
    """What one worker counted.

    Attributes:
        worker: its number.
        pid: of its process, None where it is dead.
        series: key -> its numbers.
    """

    worker: str
    pid: int | None
    series: Mapping[Key, Sequence[float]]


class Tally:
    """The numbers of this process, all 0 at first, or as a worker that died left them.

    Args:
        folder: where workers share; None: there is no other.

    Attributes:
        worker: number of this worker, from 0.
        values: float64; add to them.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._places: dict[Key, range] = {}
        self._free = _FIRST
        if folder is None:
            self.worker = "0"
            self.values: memoryview[float] = memoryview(bytearray(_BYTES)).cast("d")
        else:
            self.worker, self.values = self._claim(folder)
            self._list = _list_of(folder, self.worker).open("ab", buffering=0)
            for key, places in _read_list(folder, self.worker):
                self._places[key] = places
                self._free = places.stop
        self.values[_PID] = os.getpid()

    def place(self, key: Key, width: int) -> int:
        """Index in `values` of the first of a key's `width` numbers."""
        if key not in self._places:
            if self._folder is not None:
                self._list.write(json.dumps([*key, width]).encode() + b"\n")
            self._places[key] = range(self._free, self._free + width)
            self._free += width
        return self._places[key].start

    def reset(self, metric: str) -> None:
        """Sets all of a metric's numbers back to 0."""
        for (name, _), places in self._places.items():
            if name == metric:
                for place in places:
                    self.values[place] = 0

    def close(self) -> None:
        """Leaves the numbers to a successor, where workers share."""
        if self._folder is not None:
            import fcntl

            self._list.close()
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def snapshots(self) -> list[Snapshot]:
        """The numbers of all workers that share, living and dead."""
        if self._folder is None:
            places = list(self._places.items())
            return [Snapshot(self.worker, os.getpid(), _series(self.values, places))]
        workers = sorted(path.stem for path in self._folder.glob("*.values"))
        return [_read(self._folder, worker) for worker in workers]

    def _claim(self, folder: Path) -> "tuple[str, memoryview[float]]":
        """Takes the first array that no living worker has."""
        import fcntl  # not on Windows, where workers can't share

        for number in itertools.count():
            file = _values_of(folder, str(number)).open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            # Written, not merely made long: a full disk must show here, not at an addition.
            file.write(bytes(_BYTES - file.tell()))
            file.flush()
            self._lock = file
            return str(number), memoryview(mmap.mmap(file.fileno(), _BYTES)).cast("d")
        raise AssertionError


def _values_of(folder: Path, worker: str) -> Path:
    return folder / f"{worker}.values"


def _list_of(folder: Path, worker: str) -> Path:
    return folder / f"{worker}.list"


def _read_list(folder: Path, worker: str) -> Iterator[tuple[Key, range]]:
    free = _FIRST
    for line in _list_of(folder, worker).read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):  # else it is being written
            name, labels, width = json.loads(line)
            yield (name, tuple(labels)), range(free, free + width)
            free += width


def _read(folder: Path, worker: str) -> Snapshot:
    import fcntl

    with _values_of(folder, worker).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            alive = False
        except BlockingIOError:
            alive = True
        places = list(_read_list(folder, worker))
        size = places[-1][1].stop * 8 if places else 8
        values = memoryview(file.read(size)).cast("d")
    return Snapshot(worker, int(values[_PID]) if alive else None, _series(values, places))


def _series(
    values: "memoryview[float]", places: Sequence[tuple[Key, range]]
) -> dict[Key, Sequence[float]]:
    return {key: values[place.start : place.stop].tolist() for key, place in places}
