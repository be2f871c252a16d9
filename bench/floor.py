"""How fast the shipped model could be: `python -m bench.floor`.

Counts its floating-point operations and the bytes of its weights, measures how fast this machine
multiplies large matrices and reads memory, and sets the engines against the time below which none
can go: the longer of all operations at that rate and all weights read once. Times are CPU time.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from app.inference.engines import create_engine
from bench.tools.machine import WEIGHTS, interleaved, report, spread
from model.checkpoint.folder import read_checkpoint
from model.network.flops import count_flops
from model.network.recognizer import load_perceiver

SIZES = (256, 384, 512, 1024)  # of square matrices; the fastest counts
BATCHES = (1, 8, 32)


def matmul(size: int) -> Callable[[], object]:
    """A product of square float32 matrices by PyTorch's BLAS."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    out = torch.empty(size, size)
    return lambda: torch.mm(a, b, out=out)


def matmul_rate(rounds: int = 5, seconds: float = 0.05) -> float:
    """Floating-point operations per second of the best size's best turn, with torch's threads."""
    contenders = {str(size): matmul(size) for size in SIZES}
    times = interleaved(contenders, rounds, seconds)
    return max(2 * int(size) ** 3 / min(turns) for size, turns in times.items())


def read_rate(length: int) -> float:
    """Bytes per second of summing so many bytes over and over."""
    values = torch.rand(length // 4)
    times = interleaved({"read": lambda: torch.dot(values, values)}, 5, 0.05, time.process_time)
    return length / min(times["read"])


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    checkpoint = read_checkpoint(WEIGHTS)
    perceiver = load_perceiver(checkpoint)
    flops = count_flops(perceiver)
    weight_bytes = 4 * sum(parameter.numel() for parameter in perceiver.parameters())

    rates: dict[int, float] = {}
    all_threads = torch.get_num_threads()
    for threads in sorted({1, all_threads}):
        torch.set_num_threads(threads)
        rates[threads] = matmul_rate()
    torch.set_num_threads(1)
    bandwidth = read_rate(weight_bytes)

    engines = {
        f"{name} engine": create_engine(checkpoint, name, "cpu", threads=1)
        for name in ("onnxruntime", "torch")
    }
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(0, 256, (batch, 1, 28, 28), dtype=np.uint8)
        reference = matmul(512)
        contenders: dict[str, Callable[[], object]] = {
            name: lambda engine=engine, images=images: engine.compute(images)
            for name, engine in engines.items()
        }
        times = interleaved({**contenders, "matmul": reference}, 15, 0.1, time.process_time)
        # The rate while the engines ran, turn by turn: noise hits both sides of the ratio alike.
        rate = [2 * 512**3 / turn for turn in times["matmul"]]
        for name in contenders:
            floors = [max(batch * flops / r, weight_bytes / bandwidth) for r in rate]
            rows.append(
                {
                    "one core": name,
                    "batch": batch,
                    "floor, ms": spread(floors, 1e3),
                    "measured, ms": spread(times[name], 1e3),
                    "per image, ms": spread(times[name], 1e3 / batch),
                    "multiple of floor": spread(
                        [t / f for t, f in zip(times[name], floors, strict=True)]
                    ),
                }
            )
    print(
        f"{flops / 1e6:.1f} MFLOP per image, {weight_bytes / 1e6:.1f} MB of weights; matmul "
        + ", ".join(f"{rate / 1e9:.0f} GFLOP/s on {n} core(s)" for n, rate in rates.items())
        + f"; weights read at {bandwidth / 1e9:.0f} GB/s\n"
    )
    report(
        "floor",
        rows,
        flops_per_image=flops,
        weight_bytes=weight_bytes,
        matmul_gflops={str(n): round(rate / 1e9, 1) for n, rate in rates.items()},
        read_gb_per_s=round(bandwidth / 1e9, 1),
    )


if __name__ == "__main__":
    main()
