"""Perceiver Serve against other model servers: `python -m bench.peers --venvs FOLDER`.

Each serves the same checkpoint, alone, to the same load generator on the same cores, with its
batching on. FOLDER holds an environment for each peer; `--install` makes those that are not there.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.tools.load import (
    SAMPLE,
    Call,
    closed_loop,
    form_call,
    free_port,
    memory_mib,
    open_loop,
    wait_for_answer,
)
from bench.tools.machine import ROOT, report, spread

CONNECTIONS = (1, 8, 64)
TORCH = ["torch==2.13.0", "onnxruntime", "pillow", "pydantic", "safetensors", "numpy"]


@dataclass(frozen=True)
class Contender:
    """A server.

    Attributes:
        packages: of its environment; none for our own.
        command: environment's programs folder, port and a scratch folder -> command line.
    """

    name: str
    command: Callable[[Path, int, Path], list[str]]
    call: Call
    packages: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venvs", type=Path, required=True, help="environments of the peers")
    parser.add_argument("--install", action="store_true", help="make the environments")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=4, help="of each load")
    parser.add_argument("--only", nargs="*", help="contenders by name")
    parser.add_argument(
        "--runtime", choices=["torch", "onnxruntime"], default="torch", help="of the peers"
    )
    options = parser.parse_args()
    chosen = [c for c in contenders() if not options.only or c.name in options.only]
    if options.install:
        for contender in chosen:
            install(options.venvs / folder_name(contender), contender.packages)
        return
    os.environ["RUNTIME"] = options.runtime
    rounds: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in chosen}
    for turn in range(options.rounds):
        for contender in chosen:
            figures = measure(contender, options.venvs, options.seconds)
            print(f"round {turn + 1}: {contender.name} {figures}", file=sys.stderr, flush=True)
            rounds[contender.name].append(figures)
        rows = [row for name, turns in rounds.items() for row in summarise(name, turns)]
        report(
            "peers" if options.runtime == "torch" else f"peers_{options.runtime}",
            rows,
            command=f"python -m bench.peers --runtime {options.runtime}",
            rounds=rounds,
        )


def contenders() -> list[Contender]:
    """Ours first."""
    image = SAMPLE.read_bytes()
    form = form_call("/predict", image)
    pixels = np.asarray(Image.open(SAMPLE).convert("L")).flatten().tolist()
    tensor = {"name": "images", "shape": [1, 784], "datatype": "UINT8", "data": pixels}
    v2 = Call(
        "/v2/models/digits/infer",
        "application/json",
        json.dumps({"inputs": [tensor]}).encode(),
        "probabilities",
    )

    def ours(*flags: str) -> Callable[[Path, int, Path], list[str]]:
        return lambda programs, port, scratch: [
            *(sys.executable, "-m", "app", "--port", str(port), "--drain-delay-s", "0"),
            *flags,
        ]

    def script(module: str) -> Callable[[Path, int, Path], list[str]]:
        return lambda programs, port, scratch: [
            *(str(programs / "python"), "-m", f"bench.peer_apps.{module}", str(port)),
        ]

    return [
        Contender("Perceiver Serve", ours(), form),
        Contender("Perceiver Serve, 2 workers", ours("--workers", "2"), form),
        Contender(
            "plain FastAPI",
            lambda programs, port, scratch: [
                *(str(programs / "uvicorn"), "bench.peer_apps.plain_app:app"),
                *("--port", str(port), "--log-level", "warning"),
            ],
            form,
            [*TORCH, "fastapi", "uvicorn[standard]", "python-multipart"],
        ),
        Contender(
            "LitServe",
            script("litserve_app"),
            form,
            [*TORCH, "litserve", "python-multipart"],
        ),
        Contender(
            "BentoML",
            lambda programs, port, scratch: [
                *(str(programs / "bentoml"), "serve", "bench.peer_apps.bento_app:Digits"),
                *("--port", str(port)),
            ],
            form,
            [*TORCH, "bentoml"],
            {"BENTOML_DO_NOT_TRACK": "1"},
        ),
        Contender("MLServer", _mlserver, v2, [*TORCH, "mlserver", "uvloop<0.22"]),
        Contender(
            "Ray Serve",
            script("ray_app"),
            form,
            [*TORCH, "ray[serve]", "python-multipart"],
            {"RAY_USAGE_STATS_ENABLED": "0"},
        ),
    ]


def _mlserver(programs: Path, port: int, scratch: Path) -> list[str]:
    settings = {
        "settings.json": {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()},
        "model-settings.json": {
            "name": "digits",
            "implementation": "bench.peer_apps.mlserver_app.Digits",
            "max_batch_size": 16,
            "max_batch_time": 0.005,
        },
    }
    for name, content in settings.items():
        (scratch / name).write_text(json.dumps(content))
    return [str(programs / "mlserver"), "start", str(scratch)]


def measure(contender: Contender, venvs: Path, seconds: float) -> dict[str, Any]:
    """One start of a contender, with every load."""
    with running(contender, venvs) as (port, pid, ready_s):
        peak = [memory_mib(pid)]
        idle = peak[0]
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.5):
                peak[0] = max(peak[0], memory_mib(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        loads: dict[str, dict[str, float]] = {}
        try:
            closed_loop(port, contender.call, 8, 1)  # warm
            for connections in CONNECTIONS:
                loads[f"{connections} connections"] = closed_loop(
                    port, contender.call, connections, seconds
                )
            most = max(load["requests_per_s"] for load in loads.values())
            loads["open loop"] = open_loop(port, contender.call, most / 2, seconds)
        finally:
            stop.set()
            watcher.join()
    return {"ready_s": ready_s, "idle_mib": idle, "peak_mib": peak[0], "loads": loads}


def summarise(name: str, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each load; medians over the turns, with least and greatest."""
    rows = []
    for index, load in enumerate(turns[0]["loads"]):
        figures = [turn["loads"][load] for turn in turns]
        rows.append(
            {
                "server": name,
                "load": load,
                "requests/s": spread([f["requests_per_s"] for f in figures]),
                "p50, ms": spread([f["p50_ms"] for f in figures]),
                "p99, ms": spread([f["p99_ms"] for f in figures]),
                "errors": int(sum(f["errors"] for f in figures)),
                "ready, s": spread([t["ready_s"] for t in turns], digits=3) if not index else "",
                "memory, MiB": statistics.median(round(t["peak_mib"]) for t in turns)
                if not index
                else "",
            }
        )
    return rows


@contextlib.contextmanager
def running(contender: Contender, venvs: Path) -> Iterator[tuple[int, int, float]]:
    """Port, process id, and seconds from the process' start to the first good answer."""
    port = free_port()
    programs = venvs / folder_name(contender) / "bin"
    with tempfile.TemporaryDirectory() as scratch:
        command = contender.command(programs, port, Path(scratch))
        with open(os.environ.get("PEERS_LOG", os.devnull), "ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | contender.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield port, process.pid, wait_for_answer(port, contender.call)
        finally:
            end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Stops a server and what it started."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)


def folder_name(contender: Contender) -> str:
    return contender.name.lower().replace(" ", "-")


def install(folder: Path, packages: list[str]) -> None:
    """An environment of its own; left alone where it is there."""
    if not packages or folder.exists():
        return
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin/pip"), "install", "-q", *packages], check=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


if __name__ == "__main__":
    main()
