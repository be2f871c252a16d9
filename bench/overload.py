"""Asks for four times what the service can do: `python -m bench.overload`.

Measures how many images a second the service reads for clients that wait for their answers, offers
it a multiple of that for a while whether or not it answers, and looks again how long one request
alone takes. Every answer must be right, or a 503 with Retry-After. Server and clients have each one
core of this machine, where there are two. Ends with exit code 1 where the goals are missed.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.tools.client import Connection, Request
from tests.conftest import encode, serving
from tests.digits import load_digits

# Connections that offer the overload: enough that all of it is offered at once, not one by one.
CONNECTIONS = 400
WAITING = 64  # clients that wait for their answers, for the maximum
LEAST_SHARE = 0.9  # of the maximum, under overload
QUICK_S = 1.0  # in which 99 % of refusals must come


@dataclass
class Seen:
    """What became of requests."""

    right: int = 0
    refused: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    answer_s: list[float] = field(default_factory=list)
    refusal_s: list[float] = field(default_factory=list)


class Asker:
    """Asks for digits and compares the answers with the truth."""

    def __init__(self, port: int) -> None:
        images, labels = load_digits()
        # Those that the model reads rightly, so that another answer is another image's.
        self._requests = [
            (Request.upload("/predict", "file", [encode(image)]), int(label))
            for image, label in zip(images[:200], labels[:200], strict=True)
        ]
        self._port = port
        self._at = 0

    async def ask(self, connection: Connection, seen: Seen) -> None:
        """One request."""
        self._at = (self._at + 1) % len(self._requests)
        request, label = self._requests[self._at]
        begun = time.perf_counter()
        try:
            response = await connection.ask(request)
        except (OSError, EOFError) as error:
            seen.wrong[repr(error)] += 1
            return
        seconds = time.perf_counter() - begun
        if response.status == 200 and response.json()["digit"] == label:
            seen.right += 1
            seen.answer_s.append(seconds)
        elif response.status == 503 and b"retry-after: " in response.head.lower():
            seen.refused += 1
            seen.refusal_s.append(seconds)
        else:
            seen.wrong[f"{response.status} {response.body[:100]!r}"] += 1

    async def wait_for_each(self, clients: int, seconds: float) -> Seen:
        """Clients that ask again when they have their answer."""
        seen, end = Seen(), time.perf_counter() + seconds

        async def client() -> None:
            connection = Connection(self._port)
            while time.perf_counter() < end:
                await self.ask(connection, seen)
            await connection.close()

        await asyncio.gather(*(client() for _ in range(clients)))
        return seen

    async def offer(self, rate: float, seconds: float) -> tuple[Seen, float]:
        """So many requests a second, whatever becomes of them; and how many were answered."""
        seen = Seen()
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            free.put_nowait(Connection(self._port))
        tasks = set()
        begun = time.perf_counter()
        offered = 0

        async def ask() -> None:
            connection = await free.get()
            await self.ask(connection, seen)
            free.put_nowait(connection)

        while (now := time.perf_counter() - begun) < seconds:
            # What no connection is free for would wait here, not there: it is not offered.
            while offered < rate * now and len(tasks) < CONNECTIONS:
                task = asyncio.create_task(ask())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                offered += 1
            offered = max(offered, int(rate * now) - CONNECTIONS)
            await asyncio.sleep(0.001)
        elapsed = time.perf_counter() - begun
        answered = seen.right + seen.refused
        await asyncio.gather(*tasks)
        while not free.empty():
            await free.get_nowait().close()
        return seen, answered / elapsed


def megabytes(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(values)[int(share * (len(values) - 1))] * 1000 if values else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--times", type=float, default=4.0, help="the capacity that is offered")
    parser.add_argument("--max-queue", type=int, default=64, help="the service's setting")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    ours, theirs = (cores[:1], cores[1:2]) if len(cores) > 1 else (cores, cores)
    os.sched_setaffinity(0, theirs)  # the server inherits it
    with serving("--max-queue", str(options.max_queue), "--max-files", "8") as server:
        os.sched_setaffinity(0, ours)
        port = int(server.url.rpartition(":")[2])
        return asyncio.run(run(Asker(port), server.process.pid, options))


async def run(asker: Asker, pid: int, options: argparse.Namespace) -> int:
    await asker.wait_for_each(WAITING, 3)  # warm
    alone_before = (await asker.wait_for_each(1, 3)).answer_s
    best = await asker.wait_for_each(WAITING, 10)
    maximum = len(best.answer_s) / 10
    before = megabytes(pid)
    seen, reached = await asker.offer(options.times * maximum, options.seconds)
    after = megabytes(pid)
    alone_after = (await asker.wait_for_each(1, 3)).answer_s
    again = len((await asker.wait_for_each(WAITING, 5)).answer_s) / 5

    right = seen.right / options.seconds
    print(
        f"maximum {maximum:.0f}/s; offered {options.times:g} times that for {options.seconds:g} s"
    )
    print(f"answered {reached:.0f}/s: right {right:.0f}/s, {right / maximum:.0%} of the maximum;")
    print(
        f"  refused {seen.refused / options.seconds:.0f}/s; neither: {dict(seen.wrong) or 'none'}"
    )
    for name, values in (("right answers", seen.answer_s), ("refusals", seen.refusal_s)):
        print(
            f"  {name}: p50 {percentile(values, 0.5):.0f} ms, p99 {percentile(values, 0.99):.0f} ms"
        )
    before_ms, after_ms = (1000 * statistics.median(v) for v in (alone_before, alone_after))
    print(f"one request alone: {before_ms:.2f} ms before, {after_ms:.2f} ms after")
    print(f"maximum again afterwards: {again:.0f}/s")
    print(f"memory: {before:.0f} MB before, {after:.0f} MB after")
    missed = []
    if seen.wrong or best.wrong:
        missed.append("an answer was neither right nor a refusal")
    if right < LEAST_SHARE * maximum:
        missed.append(f"right answers fell to {right / maximum:.0%}")
    if percentile(seen.refusal_s, 0.99) > QUICK_S * 1000:
        missed.append("refusals are slow")
    if after - before > 20:
        missed.append(f"memory grew by {after - before:.0f} MB")
    for goal in missed:
        print(f"MISSED: {goal}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
