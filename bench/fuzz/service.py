"""The service in this process, with an engine that computes nothing."""

import asyncio
import socket

from app.application import Application, create_app
from app.server.worker import Server, descriptors
from app.settings import Settings
from bench.http_path import load


async def started() -> Application:
    """The application, ready to answer whoever calls it."""
    app = create_app(Settings(), load)
    await app.start()
    return app


class Serving:
    """The application behind a real port, on the event loop that runs now.

    Attributes:
        address: of the port.
    """

    def __init__(self) -> None:
        self._app = create_app(Settings(), load)
        listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = listener.getsockname()
        self._ready = asyncio.Event()
        self._server = Server(self._app, self._ready.set, supervised=True)
        self._task = asyncio.create_task(self._server.serve(descriptors(listener)))

    async def ready(self) -> None:
        """Waits until it answers."""
        await self._ready.wait()

    @property
    def is_working(self) -> bool:
        """Whether any request is being answered."""
        return bool(self._server.server_state.tasks)

    @property
    def is_decoding(self) -> bool:
        """Whether any file is decoded, or waits for it."""
        return self._app.service.budgets.pending_pixels.taken > 0
