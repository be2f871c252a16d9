"""A real server, as a user would start it, and the model to compare its answers with."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

# Several test processes share the cores: threads of each for every core would only wait for each
# other. Libraries read this when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
import hypothesis
import numpy as np
import pytest
from PIL import Image

from app.inference.budgets import Budgets
from app.inference.decoders import Decoders
from app.settings import Settings
from model.checkpoint.folder import Checkpoint, read_checkpoint
from model.data.mnist import cache_folder
from tests.digits import load_digits

ROOT = Path(__file__).parents[1]
START_LIMIT_S = 60.0
LONGEST = (
    "test_train.py",
    "test_reload.py",
    "test_lifecycle.py",
    "test_page.py",
    "test_evaluate.py",
    "test_openapi.py",
    "test_costly_requests.py",
    "test_faults.py",
    "test_export.py",
    "test_parts.py",
    "test_startup.py",
    "test_connections.py",
)

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: none is left over for one process at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@dataclass(frozen=True)
class Server:
    """A running `python -m app`."""

    process: subprocess.Popen[str]
    url: str
    greeting: str

    def stop(self) -> int:
        """Ends it as an operator would; its exit code."""
        self.process.terminate()
        return self.process.wait(START_LIMIT_S)


@contextmanager
def serving(*flags: str, program: Sequence[str] = ("-m", "app")) -> Iterator[Server]:
    """A server on a free port, ready to answer."""
    command = [sys.executable, *program, "--port", "0", "--drain-delay-s", "0", *flags]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    watchdog = threading.Timer(START_LIMIT_S, process.kill)
    watchdog.start()
    try:
        greeting = ""
        assert process.stdout is not None
        for line in process.stdout:
            greeting += line
            if "stops it" in line:
                break
        else:
            pytest.fail(f"{' '.join(command)} ended without serving")
        watchdog.cancel()
        docs = next(word for word in greeting.split() if word.endswith("/docs"))
        yield Server(process, docs.removesuffix("/docs"), greeting)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], told: Callable[[], object] = lambda: "") -> None:
    """Asks until the condition holds; where it does not come to hold, fails with what is told."""
    limit = time.monotonic() + START_LIMIT_S
    while not condition():
        assert time.monotonic() < limit, told()
        time.sleep(0.01)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as session:
        yield session


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return read_checkpoint(ROOT / Settings().weights)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1000, 28, 28) uint8 and their labels (1000,)."""
    return load_digits()


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """All of MNIST: the folder that $MNIST names, or the cache that training fills."""
    folder = Path(os.environ.get("MNIST") or cache_folder())
    if not folder.is_dir():
        pytest.skip("needs MNIST: set MNIST to a folder that holds it, or run `make train` once")
    return folder


def decoders_of(settings: Settings) -> Decoders:
    """Decoders that have nothing to do with any other."""
    return Decoders(settings, Budgets(settings).pending_pixels)


def encode(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """A picture as a file of one of Pillow's kinds."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
