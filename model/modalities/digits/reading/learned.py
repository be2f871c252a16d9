"""The learned arrays of reading, as a checkpoint holds them."""

import io
import zipfile

import numpy as np
from numpy.typing import NDArray

EXTENTS_FILE = "extents.npz"
JUDGE_FILE = "judge.npz"


def read_npz(content: bytes, name: str) -> dict[str, NDArray[np.floating]]:
    """The arrays of an .npz file, by name.

    Raises:
        ValueError: it is no such file; `name` tells which.
    """
    try:
        with np.load(io.BytesIO(content)) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name} holds no arrays: {error}") from None
