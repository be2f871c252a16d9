"""Our Perceiver against others' at one configuration: `python -m bench.models --venvs FOLDER`.

The configuration is our constructor's default. FOLDER holds `perceiver-pytorch`, `perceiver-io` and
`hugging-face`, environments with those packages and the same PyTorch; each computes in a process of
its own, in turn. Hugging Face's reads the pixels once and not six times, which is less work.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.tools.machine import ROOT, report, spread

# Name -> folder of its environment, none for our own.
CONTENDERS = {
    "ours, engine": None,
    "ours, eager": None,
    "ours, compiled": None,
    "perceiver-pytorch": "perceiver-pytorch",
    "perceiver-io": "perceiver-io",
    "Hugging Face": "hugging-face",
}
INFERENCE = ("ours, engine", "ours, eager", "perceiver-pytorch", "perceiver-io", "Hugging Face")
TRAINING = ("ours, compiled", "ours, eager", "perceiver-pytorch")
TRAINING_BATCH = 32


class Worker:
    """A contender in its process."""

    def __init__(self, name: str, venvs: Path) -> None:
        folder = CONTENDERS[name]
        python = str(venvs / folder / "bin/python") if folder else sys.executable
        self._process = subprocess.Popen(
            [python, "-m", "bench.peer_apps.model_worker", name],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, call: str, batch: int, seconds: float, threads: int) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"call": call, "batch": batch, "seconds": seconds, "threads": threads}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venvs", type=Path, required=True, help="environments of the others")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    options = parser.parse_args()
    rows = [
        *compare(options, INFERENCE, "infer", 1, threads=1),
        *compare(options, INFERENCE, "infer", 32, threads=1),
        *compare(options, TRAINING, "train", TRAINING_BATCH, threads=os.cpu_count() or 1),
    ]
    report("models", rows)


def compare(
    options: argparse.Namespace, names: tuple[str, ...], call: str, batch: int, threads: int
) -> list[dict[str, Any]]:
    """One row for each contender; the first is ours, and each row tells its multiple of that."""
    workers = {name: Worker(name, options.venvs) for name in names}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(options.rounds + 1):
        for name, worker in workers.items():
            answer = worker.ask(call, batch, options.seconds if turn else 0.1, threads)
            if turn:  # the first one warms up
                turns[name].append(answer)
            print(call, batch, name, answer, file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.stop()
    first = turns[names[0]]
    return [
        {
            "call": "inference" if call == "infer" else "training step",
            "batch": batch,
            "threads": threads,
            "implementation": name,
            "ms": spread([t["seconds"] for t in turns[name]], 1e3),
            "times ours": spread(
                [t["seconds"] / f["seconds"] for t, f in zip(turns[name], first, strict=True)], 1, 3
            ),
            "peak memory, MiB": round(max(t["peak_mib"] for t in turns[name])),
        }
        for name in names
    ]


if __name__ == "__main__":
    main()
