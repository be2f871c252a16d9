"""Installs each optional part alone, in an environment of its own, and tries what it promises.

    python tests/extras_alone.py [--only NAME ...]

An environment that holds everything hides what a part lacks. The wheel is built from a copy of the
sources and tried in an empty folder: what it has not, nobody finds. `train` needs MNIST in the
folder $MNIST and is skipped without. Needs no package; ends with exit code 0 where all held.
"""

import argparse
import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "app", "model")
WEIGHTS = ROOT / "weights/perceiver-mnist"
SEVEN = ROOT / "app/samples/7.png"
MNIST = os.environ.get("MNIST")
AT_ONCE = 3  # installing waits for the network more than for the cores
LIMIT_S = 400.0  # for a command
# What each part brings to be imported. No other part may.
BRINGS = {
    "base": set[str](),
    "torch": {"torch", "safetensors"},
    "client": {"httpx"},
    "train": {"httpx", "matplotlib", "onnx", "safetensors", "scipy", "skimage", "sklearn", "torch"},
    "otel": {"opentelemetry.sdk"},
}


class Part:
    """The project with one of its extras, or none, in an environment of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder / "empty"  # where everything runs
        self.folder.mkdir(parents=True)
        self._environment = folder / "environment"

    def install(self, pip: Path, wheel: Path) -> None:
        """Makes the environment; raises `Failure`."""
        venv.create(self._environment, symlinks=True)
        extra = "" if self.name == "base" else f"[{self.name}]"
        python = str(self._environment / "bin/python")
        self._run(
            *(str(pip), "--python", python, "install", "-qq", "--no-compile"),
            *("--constraint", str(ROOT / "requirements.lock"), f"{wheel}{extra}"),
        )

    def run(self, program: str, *arguments: str) -> str:
        """What a program of the environment prints; raises `Failure` where it fails."""
        return self._run(str(self._environment / "bin" / program), *arguments)

    def python(self, code: str, *arguments: str) -> str:
        """What a piece of Python prints in the environment."""
        return self.run("python", "-c", code, *arguments)

    @contextlib.contextmanager
    def serving(self, *flags: str) -> Iterator[str]:
        """The URL of `perceiver serve` on a free port; ends it as an operator would."""
        command = [str(self._environment / "bin/perceiver"), "serve", "--port", "0", *flags]
        with (self.folder.parent / "serve.log").open("w+") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=_surroundings(),
                text=True,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            watchdog = threading.Timer(LIMIT_S, process.kill)
            watchdog.start()
            try:
                docs = next((word for word in _words(process) if word.endswith("/docs")), None)
                if docs is None:
                    log.seek(0)
                    raise Failure(f"{' '.join(command[1:])} ends without serving:\n{log.read()}")
                yield docs.removesuffix("/docs")
                process.terminate()
                code = process.wait()
                check(code == 0, f"SIGTERM ended the service with exit code {code}")
            finally:
                watchdog.cancel()
                process.kill()
                process.communicate()

    def _run(self, *command: str) -> str:
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=_surroundings(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        if result.returncode:
            raise Failure(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
        return result.stdout


class Failure(Exception):  # noqa: N818
    """Something does not hold."""


def main() -> int:
    """Installs and tries the parts, some at a time; returns 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=list(TRIALS), metavar="NAME")
    names = parser.parse_args().only
    if not MNIST and "train" in names:
        print("train: SKIPPED, it needs MNIST in the folder $MNIST", flush=True)
        names.remove("train")
    # Environments are removed whatever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="extras-") as scratch:
        try:
            folder = Path(scratch)
            pip, wheel = build(folder)
            parts = [Part(name, folder / name) for name in names]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                held = list(pool.map(lambda part: attempt(part, pip, wheel), parts))
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # removing takes seconds
    return 0 if all(held) else 1


def build(folder: Path) -> tuple[Path, Path]:
    """A pip, and the project's wheel, from a copy of the sources alone."""
    venv.create(folder / "build", symlinks=True, with_pip=True)
    pip = folder / "build/bin/pip"
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, sources / name)
    subprocess.run(
        [pip, "wheel", "-qq", "--no-deps", "--wheel-dir", folder / "wheel", sources], check=True
    )
    return pip, next((folder / "wheel").glob("*.whl"))


def attempt(part: Part, pip: Path, wheel: Path) -> bool:
    """Prints how one part did; true where it held."""
    started = time.monotonic()
    try:
        part.install(pip, wheel)
        installed = time.monotonic()
        check_imports(part)
        TRIALS[part.name](part)
    except (Failure, OSError, subprocess.TimeoutExpired) as error:
        print(f"{part.name}: FAILED: {error}", flush=True)
        return False
    print(
        f"{part.name}: holds; installed in {installed - started:.0f} s, "
        f"tried in {time.monotonic() - installed:.0f} s",
        flush=True,
    )
    return True


def check_imports(part: Part) -> None:
    """The part brings what it should, and nothing of the others."""
    code = """if True:
        import importlib, sys
        for name in sys.argv[1:]:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                continue
            print(name)
    """
    found = set(part.python(code, *sorted(set.union(*BRINGS.values()))).split())
    wanted = BRINGS[part.name]
    check(found >= wanted, f"lacks {', '.join(sorted(wanted - found))}")
    check(found <= wanted, f"has {', '.join(sorted(found - wanted))}, which is not its own")


def try_base(part: Part) -> None:
    """ONNX Runtime answers, the page and the documentation are whole, files are read."""
    with part.serving() as url:
        reads_a_seven(url, engine="onnxruntime")
        for folder, place in (("app/web", "web"), ("app/samples", "web/samples")):
            for file in (ROOT / folder).rglob("*.*"):
                name = f"{place}/{file.relative_to(ROOT / folder)}"
                check(get(f"{url}/{name}") == file.read_bytes(), f"{name} is another file")
        check(b"<title>" in get(url), "there is no page")
        check(b"swagger-ui" in get(f"{url}/docs"), "there is no documentation")
    answer = json.loads(part.run("perceiver", "predict", str(SEVEN)))
    check(answer["digit"] == 7, f"perceiver predict says {answer}")


def try_torch(part: Part) -> None:
    """PyTorch answers, and explains."""
    with part.serving("--engine", "torch", "--device", "cpu") as url:
        reads_a_seven(url, engine="torch")
        explained = json.loads(get(f"{url}/explain", SEVEN.read_bytes()))
        check(explained["digit"] == 7, f"/explain says {explained['digit']}")
        check(bool(explained["attribution"]["map"]), "/explain has no map")


def try_client(part: Part) -> None:
    """The client's classes and `perceiver predict --url` reach a service."""
    with part.serving() as url:
        code = """if True:
            import sys
            from app.client import Client
            with Client(sys.argv[1]) as client:
                print(client.predict(sys.argv[2]).digit)
        """
        digit = part.python(code, url, str(SEVEN)).strip()
        check(digit == "7", f"the client says {digit}")
        answer = json.loads(part.run("perceiver", "predict", "--url", url, str(SEVEN)))
        check(answer["digit"] == 7, f"perceiver predict --url says {answer}")


def try_train(part: Part) -> None:
    """A small run writes a checkpoint, whose claims `perceiver evaluate` confirms."""
    data = ("--data", str(Path(MNIST or "").resolve()))
    size = ("--epochs", "1", "--train-samples", "1280", "--validation-samples", "200")
    out = part.folder / "weights/perceiver-smoke"
    part.run("perceiver", "train", "--preset", "smoke", *data, *size)
    check((out / "model.onnx").is_file(), "perceiver train leaves no graph")
    printed = part.run("perceiver", "evaluate", str(out), *data)
    check("claims hold" in printed, f"perceiver evaluate says {printed}")


def try_otel(part: Part) -> None:
    """A request's span reaches a collector, below its caller's."""
    received = bytearray()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_zipped = self.headers["Content-Encoding"] == "gzip"
            received.extend(gzip.decompress(body) if is_zipped else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        with part.serving("--otlp-endpoint", endpoint) as url:
            headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
            get(f"{url}/predict", SEVEN.read_bytes(), headers)
        collector.shutdown()  # the service's end exported what was left
    check(bytes.fromhex(trace) in received, "no span of the caller's trace reaches the collector")
    check(b"/predict" in received, "the span does not tell its route")


TRIALS: dict[str, Callable[[Part], None]] = {
    "train": try_train,  # what takes longest starts first
    "torch": try_torch,
    "base": try_base,
    "client": try_client,
    "otel": try_otel,
}


def reads_a_seven(url: str, engine: str) -> None:
    """The service computes in an engine, and reads the sample."""
    name = json.loads(get(f"{url}/metadata"))["engine"]["name"]
    check(name == engine, f"the engine is {name}")
    answer = json.loads(get(f"{url}/predict", SEVEN.read_bytes()))
    check(answer["digit"] == 7, f"/predict says {answer}")


def get(url: str, image: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """The body of a GET, or of a POST of an image; raises `Failure` where it is refused."""
    request = urllib.request.Request(url, image, {"Content-Type": "image/png", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            body: bytes = response.read()
            return body
    except OSError as error:
        said = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
        raise Failure(f"{url}: {error} {said}") from error


def check(holds: bool, sentence: str) -> None:
    """Raises `Failure` with the sentence where something does not hold."""
    if not holds:
        raise Failure(sentence)


def _words(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield from line.split()


def _surroundings() -> dict[str, str]:
    """Environment variables without what could lead out of the part's own environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PERCEIVER_", "PYTHON"))}
    return kept | {
        "OMP_NUM_THREADS": "1",  # parts run beside each other
        "PERCEIVER_WEIGHTS": str(WEIGHTS),
        "PERCEIVER_DRAIN_DELAY_S": "0",
    }


if __name__ == "__main__":
    sys.exit(main())
