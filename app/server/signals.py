"""Signals as something to wait for, beside pipes and processes."""

import signal
import socket
from types import FrameType
from typing import Self

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """A context manager for the main thread; inside, SIGTERM, SIGINT and SIGHUP only come here.

    Attributes:
        socket: to wait for; readable when a signal has come.
    """

    def __enter__(self) -> Self:
        self.socket, self._wake = socket.socketpair()
        for end in (self.socket, self._wake):
            end.setblocking(False)
        self._handlers = {number: signal.signal(number, _ignore) for number in NUMBERS}
        self._wakeup = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.socket.close()
        self._wake.close()

    def received(self) -> bytes:
        """The numbers of the signals that have come by now, in order."""
        try:
            return self.socket.recv(64)
        except BlockingIOError:
            return b""


def _ignore(number: int, frame: FrameType | None) -> None:
    """Python calls it after it has written the number to the socket."""
