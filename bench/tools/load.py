"""Load on a server of 127.0.0.1: closed loops by wrk, open loops at a fixed rate."""

import asyncio
import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.tools.machine import ROOT

SCRIPT = Path(__file__).parent / "post.lua"
SAMPLE = ROOT / "app/samples/7.png"
BOUNDARY = "c46f9d9e6b2d4f0f"
MOST_CONNECTIONS = 512


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Call:
    """A request, over and over.

    Attributes:
        expect: text that each answer must hold.
    """

    path: str
    content_type: str
    body: bytes
    expect: str


def form_call(path: str, image: bytes) -> Call:
    """An image in the form field `file`; the answer must be a seven."""
    head = (
        'Content-Disposition: form-data; name="file"; filename="7.png"\r\nContent-Type: image/png'
    )
    body = f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Call(path, f"multipart/form-data; boundary={BOUNDARY}", body, '"7"')


def closed_loop(port: int, call: Call, connections: int, seconds: int) -> dict[str, float]:
    """Requests one after the other on each connection.

    Returns: requests_per_s, p50_ms, p99_ms, errors (answers that are not as expected counted in).
    """
    with tempfile.NamedTemporaryFile() as body:
        body.write(call.body)
        body.flush()
        environment = {"BODY": body.name, "CONTENT_TYPE": call.content_type, "EXPECT": call.expect}
        output = subprocess.run(
            [
                *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"),
                *("-s", str(SCRIPT), f"http://127.0.0.1:{port}{call.path}"),
            ],
            env=os.environ | environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    figures = json.loads(output.splitlines()[-1])
    return {
        "requests_per_s": figures["requests"] / figures["seconds"],
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
        "errors": figures["errors"],
    }


def open_loop(port: int, call: Call, rate: float, seconds: float) -> dict[str, float]:
    """Requests at a fixed rate, whatever the server does; latency counts from when each was due."""
    return asyncio.run(_open_loop(port, call, rate, seconds))


async def _open_loop(port: int, call: Call, rate: float, seconds: float) -> dict[str, float]:
    request = (
        f"POST {call.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: {call.content_type}\r\nContent-Length: {len(call.body)}\r\n\r\n"
    ).encode() + call.body
    loop = asyncio.get_running_loop()
    idle: list[_Connection] = []
    latencies: list[float] = []
    errors = connections = 0
    sending: set[asyncio.Task[None]] = set()

    async def send(due: float) -> None:
        nonlocal errors, connections
        try:
            if idle:
                connection = idle.pop()
            else:
                connections += 1
                _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
            answer = await asyncio.wait_for(connection.ask(request), 10)
            good = answer.startswith(b"HTTP/1.1 200") and call.expect.encode() in answer
            idle.append(connection)
        except (OSError, TimeoutError, ConnectionError):
            good = False
        if good:
            latencies.append(loop.time() - due)
        else:
            errors += 1

    start = loop.time() + 0.05
    for index in range(round(rate * seconds)):
        due = start + index / rate
        if (pause := due - loop.time()) > 0:
            await asyncio.sleep(pause)
        if len(sending) >= MOST_CONNECTIONS:
            errors += 1
            continue
        task = loop.create_task(send(due))
        sending.add(task)
        task.add_done_callback(sending.discard)
    if sending:
        await asyncio.wait(sending)
    took = loop.time() - start
    return {
        "requests_per_s": len(latencies) / took,
        "p50_ms": float(np.percentile(latencies, 50)) * 1e3 if latencies else float("nan"),
        "p99_ms": float(np.percentile(latencies, 99)) * 1e3 if latencies else float("nan"),
        "errors": errors,
    }


class _Connection(asyncio.Protocol):
    """A connection that is asked one thing at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = bytearray()

    async def ask(self, request: bytes) -> bytes:
        """The whole answer, head and body."""
        self._received.clear()
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", self._received[:head_end])
        whole = (
            len(self._received) >= head_end + 4 + int(length[1])
            if length
            else self._received.endswith(b"0\r\n\r\n")
        )
        if whole and not self._answer.done():
            self._answer.set_result(bytes(self._received))

    def connection_lost(self, error: Exception | None) -> None:
        answer = getattr(self, "_answer", None)
        if answer is not None and not answer.done():
            answer.set_exception(error or ConnectionError("the server hung up"))


def memory_mib(root: int) -> float:
    """Proportional set size of a process and all that descend from it, in MiB."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    total, todo = 0.0, [root]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
        total += int(found[1]) / 1024 if found else 0
    return total


def wait_for_answer(port: int, call: Call, limit_s: float = 60.0) -> float:
    """Seconds until a good answer comes."""
    started = time.perf_counter()
    while (waited := time.perf_counter() - started) < limit_s:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", call.path, call.body, {"Content-Type": call.content_type})
            response = connection.getresponse()
            if response.status == 200 and call.expect in response.read().decode():
                return time.perf_counter() - started
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.005)
    raise TimeoutError(f"no good answer within {waited:.0f} s")
