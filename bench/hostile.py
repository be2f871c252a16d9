"""What four clients that send the worst there is do to everybody else: `python -m bench.hostile`.

Serves with the default settings. First each of the dearest requests alone: its CPU time and the
memory that it takes. Then four clients send them all without a pause, while others ask for what
they need: a picture of 300 x 300 pixels, one of 28 x 28, /health/live. Then SIGTERM. Compares each
figure with what SECURITY.md promises, and ends with exit code 1 where one is worse.
"""

import argparse
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np

from app.settings import Settings
from bench.tools.machine import report
from tests.attacks import DREADED, LEGAL, REFUSED, attack, gzip_bomb, string_among_numbers
from tests.conftest import Server, encode, serving
from tests.digits import load_digits

ATTACKERS = 4
CPU_S, MEMORY_MIB = 2.0, 300.0  # of one request
MEDIAN_S = {"300 x 300": 1.0, "28 x 28": 0.2, "live": 0.3}
WORST_S = {"300 x 300": 3.0, "live": 0.3}
TICKS = os.sysconf("SC_CLK_TCK")

Call = Callable[[httpx.Client], httpx.Response]


def main() -> int:
    """Measures, compares, and tells."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of the attack")
    options = parser.parse_args()
    missed: list[str] = []
    calls = dict(_calls())
    with serving() as server:
        alone = _each_alone(server, calls)
    for name, (_, cpu_s, mib, _) in alone.items():
        if cpu_s > CPU_S or mib > MEMORY_MIB:
            missed.append(f"{name}: {cpu_s:.2f} s, {mib:.0f} MiB")
    with serving("--drain-delay-s", "1") as server:
        seen, peak, statuses = _under_attack(server, list(calls.values()), options.seconds)
        begun = time.monotonic()
        server.process.terminate()
        server.process.wait(60)
        end_s = time.monotonic() - begun
    for name, times in seen.items():
        median, worst = statistics.median(times), max(times)
        print(f"{name:10} n {len(times)}  median {median:.3f} s  worst {worst:.3f} s")
        if median > MEDIAN_S[name] or worst > WORST_S.get(name, float("inf")):
            missed.append(f"{name}: median {median:.3f}, worst {worst:.3f} s")
    print(f"attackers got {dict(statuses)}; at most {peak:.0f} MiB; SIGTERM took {end_s:.2f} s")
    if end_s > 1 + Settings().request_timeout_s + 1:
        missed.append(f"SIGTERM took {end_s:.2f} s")
    rows = [
        {"request": name, "status": status, "cpu_s": cpu_s, "mib": mib, "seconds": seconds}
        for name, (status, cpu_s, mib, seconds) in alone.items()
    ]
    others = {
        name: {"n": len(times), "median_s": statistics.median(times), "worst_s": max(times)}
        for name, times in seen.items()
    }
    report("hostile", rows, others=others, peak_mib=peak, sigterm_s=end_s)
    for miss in missed:
        print(f"MISSED {miss}")
    return 1 if missed else 0


def _calls() -> Iterator[tuple[str, Call]]:
    """The dearest requests by name."""
    for name in (*LEGAL, *REFUSED):
        yield f"/predict {name}", _upload("/predict", [("file", attack(name))])
    for name in (*DREADED, "25 MP of RGBA, PNG"):
        yield f"/read {name}", _upload("/read", [("file", attack(name))])
    name = "25 MP of RGBA, PNG"
    picture = [("file", attack(name))]
    yield f"/explain {name}", _upload("/explain", picture, {"Accept": "image/png"})
    for name in (
        "800 KB of fractions in EXIF, PNG",
        "1,990 comments, JPEG",
        "16 MP, WebP",
        "12 MP in one column, PNG",
        "25 MP of RGBA, PNG",
        "25 MP, JPEG",
    ):
        yield (
            f"/predict/batch 64 of {name}",
            _upload("/predict/batch", [("files", attack(name))] * 64),
        )
    infer = "/v2/models/perceiver-mnist/infer"
    for length in (4000, 10_000):
        text = string_among_numbers(length)
        yield f"/v2 a string of {length} among numbers", _post(infer, text)
    inflating = {"Content-Encoding": "gzip"}
    yield "/v2 gzip of 63 MB", _post(infer, gzip_bomb(63 * 2**20), inflating)
    yield "/v2 63 MB of JSON", _post(infer, b"[" + b" " * (63 * 2**20) + b"]")


def _upload(
    path: str, files: list[tuple[str, bytes]], headers: dict[str, str] | None = None
) -> Call:
    def call(client: httpx.Client) -> httpx.Response:
        return client.post(
            path, files=[(field, ("x", content)) for field, content in files], headers=headers
        )

    return call


def _post(path: str, content: bytes, headers: dict[str, str] | None = None) -> Call:
    return lambda client: client.post(path, content=content, headers=headers)


def _each_alone(
    server: Server, calls: dict[str, Call]
) -> dict[str, tuple[int, float, float, float]]:
    """Status, CPU seconds, MiB above what was there before, and seconds, of each request."""
    figures = {}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(3):  # decoders are there, and their imports done
            for call in (calls["/predict 25 MP, JPEG"], calls["/read strewn ink"]):
                call(client)
        for name, call in calls.items():
            pids = _family(server.process.pid)
            cpu, before = _cpu_s(pids), _memory_mib(pids)
            stop = threading.Event()
            peak = [before]
            watch = threading.Thread(target=_watch, args=(server.process.pid, stop, peak))
            watch.start()
            begun = time.monotonic()
            status = call(client).status_code
            seconds = time.monotonic() - begun
            while _busy(server.process.pid):
                pass
            stop.set()
            watch.join()
            pids = _family(server.process.pid)
            figures[name] = status, max(0.0, _cpu_s(pids) - cpu), max(peak) - before, seconds
    return figures


def _busy(pid: int) -> bool:
    """Whether the service still uses the CPU after its answer."""
    before = _cpu_s(_family(pid))
    time.sleep(0.2)
    return _cpu_s(_family(pid)) - before > 0.05


def _under_attack(
    server: Server, calls: list[Call], seconds: float
) -> tuple[dict[str, list[float]], float, Counter[str]]:
    """Seconds that others waited, the most memory, and what the attackers were answered."""
    stop = threading.Event()
    statuses: Counter[str] = Counter()
    seven = load_digits()[0][0]
    small, large = (
        encode(seven),
        encode(np.kron(255 - seven, np.ones((11, 11), np.uint8))[:300, :300]),
    )
    others = {
        "300 x 300": _upload("/predict", [("file", large)]),
        "28 x 28": _upload("/predict", [("file", small)]),
        "live": lambda client: client.get("/health/live"),
    }
    seen: dict[str, list[float]] = {name: [] for name in others}
    peak = [0.0]

    def attacker(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            turn = number
            while not stop.is_set():
                turn += 1
                try:
                    statuses[str(calls[turn * 7 % len(calls)](client).status_code)] += 1
                except httpx.HTTPError as error:
                    statuses[type(error).__name__] += 1

    def other(name: str) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not stop.wait(0.1):
                begun = time.monotonic()
                response = others[name](client)
                seen[name].append(time.monotonic() - begun)
                if response.status_code != 200:
                    raise AssertionError(f"{name}: {response.status_code} {response.text}")

    threads = [
        threading.Thread(target=attacker, args=(n * 11,), daemon=True) for n in range(ATTACKERS)
    ]
    threads += [threading.Thread(target=other, args=(name,), daemon=True) for name in others]
    threads.append(
        threading.Thread(target=_watch, args=(server.process.pid, stop, peak), daemon=True)
    )
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    threading.Timer(0.5, stop.set).start()  # SIGTERM comes while they go on
    return seen, max(peak), statuses


def _watch(pid: int, stop: threading.Event, peak: list[float]) -> None:
    while not stop.wait(0.02):
        peak[0] = max(peak[0], _memory_mib(_family(pid)))


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for each in found:
        try:
            children = Path(f"/proc/{each}/task/{each}/children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
    return found


def _cpu_s(pids: list[int]) -> float:
    """CPU seconds of processes, and of their children that have ended."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11 : 15 if pid == pids[0] else 13]))
    return ticks / TICKS


def _memory_mib(pids: list[int]) -> float:
    kib = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        kib += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kib / 1024


if __name__ == "__main__":
    sys.exit(main())
