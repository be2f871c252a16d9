"""Broken bodies of the Open Inference Protocol, given to the application as a server would."""

import asyncio
from collections.abc import Callable
from typing import Any

from app.application import Application
from bench.fuzz.service import started
from bench.fuzz.trials import PROMISES, ErrorLog, Meter, PauseWatch, Tally, resident_mib
from tests.mutations.inference import Body, mutant

# What a body may take, in MiB, and in its own size when inflated.
FLOOR_MIB, MULTIPLE = 32, 8
_PATH = "/v2/models/perceiver-mnist/infer"
_GOOD = (
    b'{"inputs":[{"name":"image","shape":[1,28,28],"datatype":"UINT8","data":[%s]}],'
    b'"outputs":[{"name":"digit"}]}'
) % b",".join([b"0"] * 784)


class InferenceBodies:
    """Tries bodies one after the other."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._log: ErrorLog | None = None
        self._app: Application | None = None

    def try_all(self, numbers: range, on_next: Callable[[int], None]) -> Tally:
        """Tries each."""
        return self._runner.run(self._try_all(numbers, on_next))

    async def _try_all(self, numbers: range, on_next: Callable[[int], None]) -> Tally:
        if self._app is None:
            self._app, self._log = await started(), ErrorLog()
        meter, tally, watch = Meter(), Tally(), PauseWatch()
        watching = asyncio.create_task(watch.run())
        await asyncio.sleep(0)  # it has begun
        for number in numbers:
            on_next(number)
            body = mutant(number)
            with meter.measure() as taken:
                status = (await _answer(self._app, body))[0]
            pause_s = await watch.pause_s(taken["cpu_s"])
            tally.outcomes[str(status)] += 1
            tally.cost(number, PROMISES["inference"], pause_s=pause_s, **taken)
            most = FLOOR_MIB + MULTIPLE * body.size / 2**20
            if taken["mib"] > most:
                tally.find(number, f"takes {taken['mib']:.0f} MiB, more than {most:.0f}")
            if status >= 500 and status not in (503, 504):
                tally.find(number, f"status {status}")
            for line in self._log.take():
                tally.find(number, line)
        watching.cancel()
        status, content = await _answer(self._app, Body(_GOOD, [], len(_GOOD)))
        if status != 200 or b'"data":[7]' not in content:
            tally.find(numbers[-1], f"after it a good request is answered {status} {content!r}")
        tally.resident_mib = resident_mib()
        return tally


async def _answer(app: Application, body: Body) -> tuple[int, bytes]:
    """Status and content of the answer to a body."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": _PATH,
        "raw_path": _PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-length", str(len(body.content)).encode()), *body.headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": body.content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
