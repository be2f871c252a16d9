"""Tries broken inputs by the million; ends with exit code 1 where something is found.

    python -m bench.fuzz [--kind pictures|inference|requests] [--count 1000000] [--start 0]

Looks for what must not be: a crash or a hang, an answer that blames the service, an input that
costs more than is promised. Each input has a number, by which it can be made again:
`tests.mutations.KIND.mutant(number)`.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.fuzz.children import Outcome, Run
from bench.tools.machine import report

SHARES = {"pictures": 0.7, "inference": 0.2, "requests": 0.1}
COUNT = 1_000_000
CHILDREN = 2  # at a time
FEW = 6  # of many inputs with the same fault


def main() -> int:
    """Runs each kind in turn, in two child processes."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.fuzz", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--kind", choices=SHARES, help="default: all, by their shares")
    parser.add_argument("--count", type=int, default=COUNT, help="inputs in all")
    parser.add_argument("--start", type=int, default=0, help="number of the first of each kind")
    options = parser.parse_args()
    shares = {options.kind: 1.0} if options.kind else SHARES
    rows, found = [], 0
    for kind, share in shares.items():
        begun = time.monotonic()
        count = max(1, round(options.count * share))
        outcome = _tried(kind, range(options.start, options.start + count))
        rows.append(outcome.row(kind, count, time.monotonic() - begun))
        print(f"\n{kind}: " + ", ".join(f"{n} {c:,}" for n, c in outcome.tally.outcomes.items()))
        _tell(kind, outcome.tally.findings)
        found += len(outcome.tally.findings)
    report("fuzz", rows)
    return 1 if found else 0


def _tell(kind: str, findings: Sequence[tuple[int, str]]) -> None:
    """Prints what was found, those that read alike but for numbers together."""
    alike: dict[str, list[tuple[int, str]]] = {}
    for number, what in sorted(findings):
        alike.setdefault(re.sub(r"0x[0-9a-f]+|[\d.]+", "N", what), []).append((number, what))
    for group in sorted(alike.values(), key=len, reverse=True):
        others = f", {len(group):,} times, as {[n for n, _ in group[1:FEW]]}" if group[1:] else ""
        print(f"FOUND {kind} {group[0][0]}: {group[0][1]}{others}")


def _tried(kind: str, numbers: range) -> Outcome:
    """The inputs in as many parts as there are children."""
    size = -(-len(numbers) // CHILDREN)
    parts = [numbers[at : at + size] for at in range(0, len(numbers), size)]
    outcome = Outcome()
    with ThreadPoolExecutor(CHILDREN) as pool:
        for other in pool.map(lambda part: Run(kind, part).outcome(), parts):
            outcome.add(other)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
