"""What is known of a strip: which of its digits each candidate holds."""

import numpy as np
from numpy.typing import NDArray

from model.modalities.digits.reading.segment import Piece, Segmentation
from model.modalities.digits.synthetic.strips import Strip

# Shares of the ink of a digit that is held, of another digit, and of a candidate that is another's.
WHOLE, OTHER, FOREIGN = 0.75, 0.35, 0.25


def digits_held(found: Segmentation, strip: Strip) -> NDArray[np.int64]:
    """Which digit of the strip each candidate holds, all of it and next to nothing else.

    Returns: (N,), counted from 1; 0 where it is none, a part of one, or several.
    """
    inks = {piece: _ink(piece, strip) for line in found.pieces for piece in line}
    if not found.candidates:
        return np.zeros(0, np.int64)
    ink = np.array([sum(inks[piece] for piece in c.pieces) for c in found.candidates])
    # A thin 1 beside an 8 is little ink, but all of a digit.
    shares = np.sort(np.pad(ink / np.maximum(1, sum(inks.values())), ((0, 0), (1, 0))), axis=1)
    foreign = 1 - ink.max(axis=1) / np.maximum(1, ink.sum(axis=1))
    whole = (shares[:, -1] > WHOLE) & (shares[:, -2] < OTHER) & (foreign < FOREIGN)
    return np.where(whole, ink.argmax(axis=1) + 1, 0)


def _ink(piece: Piece, strip: Strip) -> NDArray[np.int64]:
    """Its pixels by the digit that they belong to, (digits,)."""
    width, height = strip.picture.size
    down, across = np.nonzero(piece.coverage > 127)
    rows = (down + piece.box[0] - 1).clip(0, height - 1)
    columns = (across + piece.box[2] - 1).clip(0, width - 1)
    owners = strip.owner[rows, columns]
    return np.bincount(owners, minlength=len(strip.text) + 1)[1:]
