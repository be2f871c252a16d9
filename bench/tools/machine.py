"""What every benchmark shares: the machine's description, fair repeats, tables, results as JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench/results"
WEIGHTS = ROOT / "weights/perceiver-mnist"
PACKAGES = ("torch", "onnxruntime", "numpy", "uvicorn", "uvloop", "httptools", "fastapi", "pillow")


def describe() -> dict[str, Any]:
    """Hardware and software that figures were taken with."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    flags = next((line.split() for line in info if line.startswith("flags")), [])
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [flag for flag in wanted if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times contenders in turn, so that what disturbs the machine disturbs each of them.

    Args:
        contenders: name -> a call.
        rounds: turns of each.
        seconds: one turn lasts about.
        clock: tells seconds; `time.process_time` leaves out what other processes take, and is
            right for one thread.

    Returns: name -> the median of each of its turns, in seconds per call.
    """
    for call in contenders.values():
        call()
    medians: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            times = []
            end = time.perf_counter() + seconds
            while not times or time.perf_counter() < end:
                started = clock()
                call()
                times.append(clock() - started)
            medians[name].append(statistics.median(times))
    return medians


def spread(samples: Sequence[float], scale: float = 1.0, digits: int = 4) -> dict[str, float]:
    """Median, least and greatest."""
    figures = statistics.median(samples), min(samples), max(samples)
    return {
        name: float(f"{figure * scale:.{digits}g}")
        for name, figure in zip(("median", "min", "max"), figures, strict=True)
    }


def table(rows: Iterable[Mapping[str, object]]) -> str:
    """A Markdown table; its columns are the keys of the first row."""
    rows = list(rows)
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(name: str, rows: Sequence[Mapping[str, object]], **more: object) -> None:
    """Prints the rows, and keeps them in bench/results/NAME.json with the machine and more."""
    print(table(rows), flush=True)
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": describe(), "command": f"python -m bench.{name}"} | more | {"rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def _cell(value: object) -> str:
    if isinstance(value, Mapping):  # of `spread`
        return f"{value['median']:,g} ({value['min']:,g} to {value['max']:,g})"
    return f"{value:,g}" if isinstance(value, float) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
