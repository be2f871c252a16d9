"""Log lines: JSON for machines, text for people.

A request's line says what `app.telemetry.requests` puts into `fields`: never what was uploaded, nor
queries or headers, which may hold secrets.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
import select
import sys
import time
from collections import deque
from contextvars import ContextVar
from typing import Any, TextIO

from pydantic_core import to_json

from app.settings import LogFormat

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
ACCESS = logging.getLogger("app.access")

# What no line here tells needs not be found out for each.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False

# Bytes that a pipe takes whole: what workers write at the same time stays apart.
_WHOLE = getattr(select, "PIPE_BUF", 512)
_RED, _YELLOW, _GREEN, _DIM, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[2m", "\x1b[0m"


def configuration(log_format: LogFormat) -> dict[str, Any]:
    """For `logging.config.dictConfig`: all lines go to stderr, uvicorn's too.

    Args:
        log_format: `auto` is text on a terminal, else JSON.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter, "log_format": log_format}},
        "handlers": {"stderr": {"()": LineHandler, "formatter": "lines"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {"app": {"level": "INFO"}},
    }


def formatter(log_format: LogFormat, stream: TextIO | None = None) -> logging.Formatter:
    """Of lines for a stream, by default stderr; coloured on a terminal, unless NO_COLOR is set."""
    terminal = (stream or sys.stderr).isatty()
    if log_format == "json" or (log_format == "auto" and not terminal):
        return JsonFormatter()
    return TextFormatter(coloured=terminal and not os.environ.get("NO_COLOR"))


def log_request(fields: dict[str, str | float], failed: bool) -> None:
    """One line of a request; `failed` where the fault is ours.

    Args:
        fields: request_id, method, path, status and duration_ms, and what else there is to tell;
            text and finite numbers.
        failed: makes it a warning.
    """
    level = logging.WARNING if failed else logging.INFO
    if not ACCESS.isEnabledFor(level):
        return
    # Made here, not by the logger, which would look for the line of code that calls it.
    record = logging.LogRecord(ACCESS.name, level, __file__, 0, "request", None, None)
    record.fields = fields
    ACCESS.handle(record)


class LineHandler(logging.Handler):
    """Writes whole lines to stderr, without a lock.

    Those of the requests that the event loop answers in one turn go out together at its end: a
    write lets another thread run, and then waits for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held = deque[bytes]()

    def handle(self, record: logging.LogRecord) -> bool:
        try:
            self._held.append(self.format(record).encode() + b"\n")
            if not hasattr(record, "fields"):
                self.flush()
            elif len(self._held) == 1:
                asyncio.get_running_loop().call_soon(self.flush)
        except Exception:
            self.handleError(record)
        return True

    def flush(self) -> None:
        while self._held:
            lines = bytearray()
            with contextlib.suppress(IndexError):  # that was all, or another thread was quicker
                while not lines or len(lines) + len(self._held[0]) <= _WHOLE:
                    lines += self._held.popleft()
            # Neither a full disk nor a stderr that is closed or None must cost an answer.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.write(sys.stderr.fileno(), lines)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str | float] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if fields is not None:
            # A sixth of the time that json.dumps takes; but it takes no lone surrogates.
            return to_json(line | fields, ensure_ascii=True).decode()
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """A line that a person reads at a glance; a request's line says where its time went."""

    def __init__(self, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        clock = _local_second(int(record.created))
        head = self._paint(_DIM, f"{clock}.{int(record.msecs):03d}")
        fields = getattr(record, "fields", None)
        if fields is not None:
            return f"{head} {self._request(fields)}"
        colour = _RED if record.levelno >= logging.ERROR else _YELLOW
        level = record.levelname.lower()
        if record.levelno >= logging.WARNING:
            level = self._paint(colour, level)
        request_id = REQUEST_ID.get()
        tail = f" {self._paint(_DIM, request_id)}" if request_id else ""
        line = f"{head} {level} {record.name}: {printable(record.getMessage())}{tail}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line

    def _request(self, fields: dict[str, Any]) -> str:
        status = fields["status"]
        colour = _GREEN if status < 400 else _YELLOW if status < 500 else _RED
        stages = " ".join(
            f"{name.removesuffix('_ms')} {fields[name]:.1f}"
            for name in ("decode_ms", "preprocess_ms", "queue_ms", "infer_ms")
            if name in fields
        )
        return (
            f"{self._paint(colour, str(status))} {fields['method']} {printable(fields['path'])} "
            f"{fields['duration_ms']:.1f} ms{f' ({stages})' if stages else ''} "
            f"{self._paint(_DIM, fields['request_id'])}"
        )

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured else text


def printable(text: str) -> str:
    """Text from outside, unable to start a line of its own or to command a terminal."""
    return text if text.isprintable() else repr(text)[1:-1]


def _utc(seconds: float) -> str:
    """RFC 3339, with milliseconds."""
    whole = int(seconds)
    return f"{_utc_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@functools.lru_cache(1)
def _utc_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@functools.lru_cache(1)
def _local_second(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))
