"""Reads files that somebody names, without waiting for one that never begins or ends."""

import errno
import os
import stat
from pathlib import Path

# Without O_NONBLOCK to open a pipe waits for its other end.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    A pipe without a writer would keep its reader for ever, and a device may have no end.

    Raises:
        OSError: it can't be read, is no regular file or is larger; `strerror` says which.
    """
    try:
        descriptor = os.open(path, _FLAGS | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size + 1)
    finally:
        os.close(descriptor)
