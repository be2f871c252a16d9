"""Standard streams that a parent has closed."""

import os
import sys


def open_missing() -> None:
    """Opens those of stdin, stdout and stderr that are closed, on nothing.

    Else the next file or socket gets the number, and what is meant for stderr lands in it. Children
    inherit them.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)  # takes the number where it is the lowest free
            if nothing == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(nothing, number)
                os.close(nothing)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
