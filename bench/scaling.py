"""How the service scales: `python -m bench.scaling`.

Throughput with one and two workers, latency as batches grow, memory as connections grow; drawn in
bench/results/scaling.png.
"""

import argparse
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from app.inference.engines import create_engine
from bench.tools.load import SAMPLE, closed_loop, form_call, free_port, memory_mib, wait_for_answer
from bench.tools.machine import RESULTS, ROOT, WEIGHTS, interleaved, report, spread
from model.checkpoint.folder import read_checkpoint

WORKERS = (1, 2)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CONNECTIONS = (1, 10, 100, 500, 1000)


@contextmanager
def serving(workers: int) -> Iterator[tuple[int, int]]:
    """Port and process id of the service."""
    port = free_port()
    command = [sys.executable, "-m", "app", "--port", str(port), "--drain-delay-s", "0"]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_answer(port, form_call("/predict", SAMPLE.read_bytes()))
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def throughput(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each number of workers, at 64 connections."""
    call = form_call("/predict", SAMPLE.read_bytes())
    rates: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    for _ in range(rounds):
        for workers in WORKERS:
            with serving(workers) as (port, _):
                closed_loop(port, call, 64, 1)
                rates[workers].append(closed_loop(port, call, 64, seconds)["requests_per_s"])
    return [
        {"what": "requests/s", "at": f"{workers} workers", "figure": spread(rates[workers])}
        for workers in WORKERS
    ]


def batch_latency() -> list[dict[str, Any]]:
    """A row for each batch size: milliseconds of one computation on one core."""
    engine = create_engine(read_checkpoint(WEIGHTS), "onnxruntime", "cpu", threads=1)
    calls: dict[str, Callable[[], object]] = {}
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(0, 256, (batch, 1, 28, 28), dtype=np.uint8)
        calls[str(batch)] = lambda images=images: engine.compute(images)
    times = interleaved(calls, 7, 0.1, time.process_time)
    return [
        {"what": "ms", "at": f"batch {batch}", "figure": spread(times[str(batch)], 1e3)}
        for batch in BATCHES
    ]


def connection_memory() -> list[dict[str, Any]]:
    """A row for each number of open connections, each of which has had an answer."""
    call = form_call("/predict", SAMPLE.read_bytes())
    rows = []
    with serving(1) as (port, pid):
        connections: list[http.client.HTTPConnection] = []
        for count in CONNECTIONS:
            while len(connections) < count:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                headers = {"Content-Type": call.content_type}
                connection.request("POST", call.path, call.body, headers)
                connection.getresponse().read()
                connections.append(connection)
            time.sleep(0.2)
            rows.append(
                {
                    "what": "MiB",
                    "at": f"{count} connections",
                    "figure": spread([memory_mib(pid) for _ in range(3)]),
                }
            )
        for connection in connections:
            connection.close()
    return rows


def draw(parts: list[list[dict[str, Any]]]) -> None:
    """Three plots beside each other."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    workers, batches, connections = figure.subplots(1, 3)
    medians = [[row["figure"]["median"] for row in rows] for rows in parts]
    workers.bar([str(n) for n in WORKERS], medians[0], color="tab:blue")
    workers.set(xlabel="workers", ylabel="requests/s at 64 connections")
    batches.plot(BATCHES, medians[1], "o-")
    batches.set(xlabel="batch", ylabel="ms on one core", xscale="log", yscale="log")
    connections.plot(CONNECTIONS, medians[2], "o-", color="tab:green")
    connections.set(xlabel="open connections", ylabel="MiB of the process", ylim=(0, None))
    for axes in (workers, batches, connections):
        axes.grid(alpha=0.3)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "scaling.png", dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    parts = [throughput(options.rounds, options.seconds), batch_latency(), connection_memory()]
    draw(parts)
    report("scaling", [row for rows in parts for row in rows])


if __name__ == "__main__":
    main()
