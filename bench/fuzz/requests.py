"""Broken streams of HTTP requests, sent to a real port: whole, and cut in pieces."""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from bench.fuzz.service import Serving
from bench.fuzz.trials import PROMISES, ErrorLog, Meter, PauseWatch, Tally, resident_mib
from bench.tools.load import SAMPLE, form_call
from tests.mutations.requests import LAST, mutant

TRIES = 3  # on a busy machine a client may say too early that it has said all
END_S = 15.0  # within which a connection ends when the client has said all
PATIENCE_S = 0.1  # of a client who hears nothing, perhaps because its request is not whole
_TURNS = 5  # of the event loop, in which what is sent is read
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Z]")


class RequestStreams:
    """Tries streams one after the other, each over two connections."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=_new_event_loop)
        self._log: ErrorLog | None = None
        self._serving: Serving | None = None

    def try_all(self, numbers: range, on_next: Callable[[int], None]) -> Tally:
        """Tries each."""
        return self._runner.run(self._try_all(numbers, on_next))

    async def _try_all(self, numbers: range, on_next: Callable[[int], None]) -> Tally:
        if self._serving is None:
            self._serving = Serving()
            await self._serving.ready()
            self._log = ErrorLog()
        meter, tally, watch = Meter(), Tally(), PauseWatch()
        watching = asyncio.create_task(watch.run())
        await asyncio.sleep(0)  # it has begun
        for number in numbers:
            on_next(number)
            stream = mutant(number)
            with meter.measure() as taken:
                whole = await self._statuses([stream.content], number, tally)
            pause_s = await watch.pause_s(taken["cpu_s"])
            tally.cost(number, PROMISES["requests"], pause_s=pause_s, **taken)
            for _ in range(TRIES):
                cut = await self._statuses(stream.pieces, number, tally)
                if cut == whole:
                    break
                whole = await self._statuses([stream.content], number, tally)
            await self._finish(number, tally)
            if cut != whole:
                tally.find(number, f"whole: {' '.join(whole)}, cut: {' '.join(cut)}")
            tally.outcomes.update(whole)
            for status in {*whole, *cut}:
                if status >= "500" and status not in ("503", "504", "505"):
                    tally.find(number, f"status {status}")
            for line in self._log.take():
                tally.find(number, line)
        watching.cancel()
        answer = await self._answer([_good() + LAST])
        if answer is None or _STATUS.findall(answer) != [b"200"] * 2 or b'"digit":7' not in answer:
            tally.find(numbers[-1], f"after it a good request is answered {answer!r}")
        tally.resident_mib = resident_mib()
        return tally

    async def _finish(self, number: int, tally: Tally) -> None:
        """Waits until nothing is done for the clients who have gone."""
        assert self._serving is not None
        end = time.monotonic() + END_S
        while self._serving.is_working:
            if time.monotonic() > end:
                tally.find(number, f"is worked on {END_S:g} s after its connection has ended")
                return
            await asyncio.sleep(0.001)

    async def _statuses(self, pieces: Sequence[bytes], number: int, tally: Tally) -> list[str]:
        """Those of the answers to a stream."""
        answer = await self._answer(pieces)
        if answer is None:
            tally.find(number, f"the connection does not end within {END_S:g} s")
        return [status.decode() for status in _STATUS.findall(answer or b"")]

    async def _answer(self, pieces: Sequence[bytes]) -> bytes | None:
        """All that the server sends until it closes; none where it never does."""
        assert self._serving is not None
        loop = asyncio.get_running_loop()
        received = bytearray()
        with socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(client, self._serving.address)
            reading = asyncio.create_task(_receive(client, received))
            try:
                async with asyncio.timeout(END_S) as limit:
                    await self._send(client, pieces, reading, received)
                    limit.reschedule(loop.time() + END_S)
                    await reading
            except TimeoutError:
                return None
            finally:
                reading.cancel()
        return bytes(received)

    async def _send(
        self,
        client: socket.socket,
        pieces: Sequence[bytes],
        reading: "asyncio.Task[None]",
        received: bytearray,
    ) -> None:
        """Sends the pieces, and when all is answered says that these were all."""
        assert self._serving is not None
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            for piece in pieces:
                await loop.sock_sendall(client, piece)
                await asyncio.sleep(0)
            still, heard, since = 0, len(received), loop.time()
            while still < _TURNS and loop.time() < since + PATIENCE_S and not reading.done():
                if heard < len(received) or self._serving.is_decoding:
                    heard, since = len(received), loop.time()
                is_working = self._serving.is_working
                still = 0 if is_working else still + 1
                await asyncio.sleep(0.001 if is_working else 0)
            client.shutdown(socket.SHUT_WR)


async def _receive(client: socket.socket, received: bytearray) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while part := await loop.sock_recv(client, 2**16):
            received += part


def _good() -> bytes:
    call = form_call("/predict", SAMPLE.read_bytes())
    head = f"POST {call.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {call.content_type}\r\n"
    return f"{head}Content-Length: {len(call.body)}\r\n\r\n".encode() + call.body


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
