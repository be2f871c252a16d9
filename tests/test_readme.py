"""What the README prints is what happens."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from tests.conftest import ROOT, Server

README = (ROOT / "README.md").read_text()
CURLS = [line for line in README.splitlines() if line.startswith("curl ")]


def test_there_are_curl_lines():
    assert len(CURLS) >= 6


@pytest.mark.parametrize("line", CURLS)
def test_curl_line_works_as_pasted(line: str, server: Server):
    command = shlex.split(line.replace("http://127.0.0.1:8000", server.url))
    result = subprocess.run(
        [*command, "--silent", "--show-error", "--fail-with-body"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    answer = json.loads(result.stdout)
    if line.endswith("/predict"):
        assert answer["digit"] == 7
    if line.endswith("/predict/batch"):
        assert answer["predictions"][0]["digit"] == 7
        assert answer["predictions"][1]["error"]["status"] == 415


def test_python_example_runs_as_printed(server: Server):
    example = re.search(r"```python\n(from app.client.*?)```", README, re.DOTALL)[1]
    code = example.replace("http://127.0.0.1:8000", server.url)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[::2] == ["7", "40317"]


def test_printed_answer_is_the_services_own(server: Server):
    printed = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL)[1])
    line = shlex.split(CURLS[0].replace("http://127.0.0.1:8000", server.url))
    output = subprocess.run([*line, "-s"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    answer = json.loads(output.stdout)
    assert answer.keys() == printed.keys()
    for rounded in ("probabilities", "confidence", "novelty"):
        assert answer.pop(rounded) == pytest.approx(printed.pop(rounded), abs=1e-4)
    assert answer == printed


def test_python_works_as_pasted(server: Server):
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert snippets
    for snippet in snippets:
        code = snippet.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        assert "7" in result.stdout


def test_tables_of_servers_hold_the_figures_of_the_benchmark():
    rows = json.loads((ROOT / "bench/results/peers.json").read_text())["rows"]
    by_server: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_server.setdefault(row["server"], {})[row["load"]] = row

    def shown(row: dict, column: str) -> str:
        return f"{float(format(row[column]['median'], '.3g')):,g}"

    for server, loads in by_server.items():
        first, busy = loads["1 connections"], loads["64 connections"]
        cost = f"{shown(first, 'ready, s')} | {first['memory, MiB']:.0f} |"
        rates, slowest = (
            ", ".join(shown(loads[f"{n} connections"], column) for n in (1, 8, 64))
            for column in ("requests/s", "p99, ms")
        )
        open_loop = shown(loads["open loop"], "p99, ms")
        short = f"| {server} | {shown(busy, 'requests/s')} | {shown(busy, 'p99, ms')} | {cost}"
        assert short in README
        assert f"| {server} | {rates} | {slowest} | {open_loop} | {cost}" in README


def test_settings_table_is_complete():
    for name, field in Settings.model_fields.items():
        row = f"| `PERCEIVER_{name.upper()}` | `--{name.replace('_', '-')}` | {field.default} |"
        assert f"{row} {field.description} |" in README


def test_files_that_it_names_exist():
    for path in re.findall(r"(?:app|model|weights|tests)/[\w./-]+\w", README):
        if not path.endswith(("mine", "smoke")):  # the reader's own, made by a command
            assert (ROOT / path).exists(), path
    assert Path(ROOT / "LICENSE").exists()


def test_what_the_security_page_names_exists():
    page = (ROOT / "SECURITY.md").read_text()
    for path in set(re.findall(r"`((?:tests|bench)/[\w./]+)`", page)):
        assert (ROOT / path).exists(), path
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in set(re.findall(r"`(test_\w+|assert_\w+)`", page)):
        assert f"def {name}(" in tests, name
