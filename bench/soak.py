"""Two hundred thousand mixed requests: `python -m bench.soak`.

Single images and batches, raw and in forms, good and broken, of every format, metadata, health and
Open Inference, over connections some of which are dropped half-way. Each answer is compared with
what it must be; memory and open files of the service are looked at before, during and after. Ends
with exit code 1 where an answer was wrong or something leaks.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from bench.tools.client import Connection, Request, Response
from tests.conftest import encode, serving
from tests.digits import load_digits

CLIENTS = 16
MAX_GROWTH_MB = 30.0
KINDS = ("PNG", "BMP", "TIFF", "GIF", "WEBP")

Check = Callable[[Response], bool]


def reads(label: int) -> Check:
    """A prediction of this digit."""
    return lambda response: response.status == 200 and response.json()["digit"] == label


def refuses(status: int) -> Check:
    """A problem of this status."""
    return lambda response: response.status == status and response.json()["status"] == status


def requests() -> list[tuple[int, str, Request, Check]]:
    """Weight, name, request and check of each of the mix."""
    images, labels = load_digits()
    mix: list[tuple[int, str, Request, Check]] = []
    for index in range(0, 200, 4):
        label = int(labels[index])
        picture = Image.fromarray(images[index])
        file = encode(picture, KINDS[index // 4 % len(KINDS)], **_lossless(index // 4))
        mix.append((10, "form", Request.upload("/predict", "file", [file]), reads(label)))
        raw = Request.of("POST", "/predict", "image/png", encode(picture))
        mix.append((6, "raw", raw, reads(label)))
        broken = Request.upload("/predict", "file", [file[: len(file) // 2]])
        mix.append((2, "broken", broken, lambda r: r.status in (200, 422)))
        some = [encode(images[at]) for at in range(index, index + 4)]
        truth = [int(value) for value in labels[index : index + 4]]
        mix.append((1, "batch", Request.upload("/predict/batch", "files", some), _batch(truth)))
        tensor = {
            "name": "image",
            "datatype": "UINT8",
            "shape": [1, 28, 28],
            "data": images[index].ravel().tolist(),
        }
        body = json.dumps({"inputs": [tensor]}).encode()
        infer = Request.of("POST", "/v2/models/perceiver-mnist/infer", "application/json", body)
        mix.append((2, "infer", infer, _infer(label)))
    text = Request.of("POST", "/predict", "image/png", b"I am no image")
    mix += [
        (60, "no image", text, refuses(415)),
        (30, "empty", Request.upload("/predict", "file", [b""]), refuses(400)),
        (30, "no such page", Request.of("GET", "/nowhere"), refuses(404)),
        (60, "health", Request.of("GET", "/health/ready"), lambda r: r.status == 200),
        (20, "metadata", Request.of("GET", "/metadata"), lambda r: "card" in r.json()),
    ]
    return mix


def _lossless(number: int) -> dict[str, object]:
    return {"lossless": True} if KINDS[number % len(KINDS)] == "WEBP" else {}


def _batch(truth: list[int]) -> Check:
    return lambda response: [p.get("digit") for p in response.json()["predictions"]] == truth


def _infer(label: int) -> Check:
    def check(response: Response) -> bool:
        outputs = {output["name"]: output["data"] for output in response.json()["outputs"]}
        return bool(outputs["digit"] == [label])

    return check


def resources(pid: int) -> tuple[float, int]:
    """Resident MB and open files of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))


async def soak(port: int, pid: int, count: int) -> int:
    mix = requests()
    weights = [weight for weight, *_ in mix]
    done: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    begun = time.monotonic()

    async def drop(request: Request) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.content[: len(request.content) // 2])
        await writer.drain()
        writer.transport.abort()

    async def client(number: int, share: int) -> None:
        rng = random.Random(number)
        connection = Connection(port)
        for _ in range(share):
            (_, name, request, is_right), *_ = rng.choices(mix, weights)
            if rng.random() < 0.01:
                await drop(request)
                done["dropped half-way"] += 1
                continue
            response = await connection.ask(request)
            done[name] += 1
            if not is_right(response):
                wrong[f"{name}: {response.status} {response.body[:100]!r}"] += 1
        await connection.close()

    async def run(number: int) -> None:
        share = number // CLIENTS
        await asyncio.gather(*(client(seed, share) for seed in range(CLIENTS)))

    await run(min(count, 10_000))  # fills caches and pools
    before = resources(pid)
    print(
        f"after {done.total():,} requests: {before[0]:.0f} MB, {before[1]} open files", flush=True
    )
    for part in range(1, 5):
        await run(count // 4)
        now = resources(pid)
        seconds = time.monotonic() - begun
        print(f"{part} of 4, {seconds:.0f} s: {now[0]:.0f} MB, {now[1]} open files", flush=True)
    await asyncio.sleep(1)
    after = resources(pid)
    print(f"{done.total():,} requests: {dict(done.most_common())}")
    print(f"wrong answers: {dict(wrong.most_common(5)) if wrong else 'none'}")
    print(f"at the end: {after[0]:.0f} MB, {after[1]} open files")
    leaks = after[0] - before[0] > MAX_GROWTH_MB or after[1] > before[1] + CLIENTS
    return 1 if wrong or leaks else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200_000, help="requests")
    options = parser.parse_args()
    with serving() as server:
        port = int(server.url.rpartition(":")[2])
        return asyncio.run(soak(port, server.process.pid, options.count))


if __name__ == "__main__":
    sys.exit(main())
