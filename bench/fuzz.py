"""Decodes and prepares broken image files by the hundred thousand.

    python -m bench.fuzz [--count 100000] [--start 0]

Looks for what must not be: a crash of the process, an exception other than `InputError`, an input
that takes over a second, memory that grows. Each input has a number, by which it can be made again:
`tests.mutations.mutant(number)`. Ends with exit code 1 where something was found.
"""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection

from app.settings import Settings
from model.modalities import InputError
from model.modalities.digits.form import prepare
from model.modalities.digits.modality import SPEC
from model.modalities.pillow import decode
from tests.mutations import mutant, seeds

SLOW_S = 1.0
HANG_S = 30.0
CHUNK = 1000
MAX_GROWTH_MB = 50.0


def main() -> int:
    """Runs the inputs in child processes, which a crash or hang ends without ending the run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="inputs")
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    options = parser.parse_args()
    begun = time.monotonic()
    at, end = options.start, options.start + options.count
    outcomes: Counter[str] = Counter()
    found: list[str] = []
    memory: list[float] = []
    slowest = (0.0, 0)
    while at < end:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        child = multiprocessing.get_context("spawn").Process(target=_run, args=(at, end, theirs))
        child.start()
        theirs.close()
        while at < end:
            try:
                if not ours.poll(HANG_S + CHUNK * SLOW_S):
                    found.append(f"hangs between {at} and {at + CHUNK}")
                    break
                at, counts, megabytes, slow, finds = ours.recv()
            except EOFError:
                child.join()
                found.append(f"crash ({child.exitcode}) between {at} and {at + CHUNK}")
                break
            outcomes.update(counts)
            memory.append(megabytes)
            slowest = max(slowest, slow)
            found += finds
            print(f"\r{at - options.start:,} inputs, {megabytes:.0f} MB", end="", file=sys.stderr)
        else:
            child.join()
            continue
        child.kill()
        child.join()
        at += CHUNK
    growth = max(memory[len(memory) // 2 :]) - max(memory[: max(1, len(memory) // 2)])
    print(
        f"\n{options.count:,} inputs from {len(seeds())} files in {time.monotonic() - begun:.0f} s"
    )
    print("  " + ", ".join(f"{name} {count:,}" for name, count in outcomes.most_common()))
    print(f"  slowest: input {slowest[1]}, {slowest[0] * 1000:.0f} ms")
    print(f"  memory: at most {max(memory):.0f} MB,", end=" ")
    print(f"in the second half {growth:+.1f} MB against the first")
    if growth > MAX_GROWTH_MB:
        found.append(f"memory grows by {growth:.1f} MB")
    for finding in found:
        print(f"  FOUND {finding}")
    return 1 if found else 0


def _run(start: int, end: int, pipe: Connection) -> None:
    """Reports after each chunk: next number, outcomes, MB in use, the slowest, findings."""
    limit, preprocessing = Settings().max_pixels, SPEC
    for chunk in range(start, end, CHUNK):
        outcomes: Counter[str] = Counter()
        findings = []
        slowest = (0.0, 0)
        for number in range(chunk, min(end, chunk + CHUNK)):
            content = mutant(number)
            seconds = SLOW_S
            for _ in range(3):  # a machine that does other things is no finding
                begun = time.perf_counter()
                try:
                    prepare(decode(content, limit), preprocessing)
                    outcome = "read"
                except InputError as error:
                    outcome = type(error).__name__
                except Exception as error:
                    outcome = "unexpected"
                    findings.append(f"{number}: {error!r}")
                seconds = min(seconds, time.perf_counter() - begun)
                if seconds < SLOW_S or outcome == "unexpected":
                    break
            else:
                findings.append(f"{number}: takes over {SLOW_S} s")
            outcomes[outcome] += 1
            slowest = max(slowest, (seconds, number))
        pipe.send((min(end, chunk + CHUNK), outcomes, _megabytes(), slowest, findings))


def _megabytes() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    sys.exit(main())
