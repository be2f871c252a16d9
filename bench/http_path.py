"""What a request costs besides the model: `python -m bench.http_path`.

Serves with an engine that computes nothing, so that the CPU time of the server's process is that of
everything else, and times each stage of a request alone. One image of 28 x 28 pixels in a form.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.application import create_app
from app.gate.forms import FIELD, Form, FormLimits
from app.inference.batcher import Batcher
from app.inference.engines import EngineName, Outputs
from app.inference.predictor import Predictor
from app.server.worker import Server
from app.settings import Settings
from bench.tools.load import BOUNDARY, SAMPLE, closed_loop, form_call, free_port, wait_for_answer
from bench.tools.machine import ROOT, report, spread
from model.checkpoint.folder import Checkpoint, read_checkpoint
from model.modalities.digits.form import prepare
from model.modalities.pillow import decode

TICKS = os.sysconf("SC_CLK_TCK")


class Nothing:
    """An engine that reads a seven in every image, at once."""

    name: EngineName = "onnxruntime"
    device = "cpu"
    concurrency = 1
    tolerance = 1.0

    def compute(self, images: NDArray[np.uint8]) -> Outputs:
        logits = np.zeros((len(images), 10), np.float32)
        logits[:, 7] = 9
        return Outputs(logits, np.zeros(len(images), np.float32))

    def explaining(self) -> Any:
        raise NotImplementedError  # no request here asks for explanations


def load(settings: Settings, checkpoint: Checkpoint | None = None) -> Predictor:
    return Predictor(read_checkpoint(settings.weights).card, Nothing(), settings)


def serve(port: int) -> None:
    """The service with that engine, in one process."""
    settings = Settings(port=port, log_format="json")
    app = create_app(settings, load)
    listener = socket.create_server((settings.host, port))
    Server(app, lambda: None, supervised=False).serve_on(listener)


def server_cpu(rounds: int, seconds: int, connections: int) -> list[float]:
    """CPU seconds of the server's process per request, one figure a round."""
    port, call = free_port(), form_call("/predict", SAMPLE.read_bytes())
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.http_path", "--serve", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_answer(port, call)
        closed_loop(port, call, connections, 1)
        figures = []
        for _ in range(rounds):
            before = cpu_seconds(process.pid)
            done = closed_loop(port, call, connections, seconds)
            spent = cpu_seconds(process.pid) - before
            figures.append(spent / (done["requests_per_s"] * seconds))
        return figures
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def stages() -> dict[str, list[float]]:
    """CPU seconds of each stage called alone, in this thread; a figure a round."""
    image = SAMPLE.read_bytes()
    call = form_call("/predict", image)
    settings = Settings()
    limits = FormLimits(FIELD, 1, settings.max_bytes, settings.max_bytes)
    predictor = load(settings)
    picture = decode(image, settings.max_pixels)
    spec = predictor.card.input
    pixels = prepare(picture, spec)

    def parse_form() -> object:
        form = Form(BOUNDARY, limits)
        form.write(call.body)
        return form.end()

    calls: dict[str, Callable[[], object]] = {
        "form parsed": parse_form,
        "PNG decoded": lambda: decode(image, settings.max_pixels),
        "preprocessed": lambda: prepare(picture, spec),
        "probabilities": lambda: predictor._outputs([pixels]),
    }
    return {name: cpu_times(call) for name, call in calls.items()} | {
        "batcher": asyncio.run(batcher_times())
    }


def cpu_times(call: Callable[[], object], rounds: int = 15, calls: int = 200) -> list[float]:
    figures = []
    for _ in range(rounds):
        started = time.thread_time()
        for _ in range(calls):
            call()
        figures.append((time.thread_time() - started) / calls)
    return figures


async def batcher_times(rounds: int = 15, calls: int = 200) -> list[float]:
    """Of both threads: submitted, computed as nothing in the engine's thread, and back."""
    batcher: Batcher[int, int] = Batcher(lambda items: items, max_batch=16, max_queue=16)
    deadline = asyncio.get_running_loop().time() + 3600
    figures = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            await batcher.submit([0], deadline)
        figures.append((time.process_time() - started) / calls)
    await batcher.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    port = parser.parse_args().serve
    if port:
        with contextlib.suppress(KeyboardInterrupt):
            serve(port)
        return
    parts = stages()
    whole = server_cpu(5, 4, 8)
    rest = statistics.median(whole) - sum(statistics.median(part) for part in parts.values())
    rows = [{"stage": name, "ms of CPU": spread(times, 1e3, 3)} for name, times in parts.items()]
    rows.append(
        {
            "stage": "HTTP, ASGI, limits, metrics, log, JSON: what is left",
            "ms of CPU": spread([rest], 1e3, 3),
        }
    )
    rows.append(
        {"stage": "everything but the engine, 8 connections", "ms of CPU": spread(whole, 1e3, 3)}
    )
    report("http_path", rows)


if __name__ == "__main__":
    main()
