"""The learned arrays of reading, as a checkpoint holds them."""

import io
import zipfile
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

EXTENTS_FILE = "extents.npz"
JUDGE_FILE = "judge.npz"


class Learned:
    """What computes with learned arrays, by name, in float32."""

    file: ClassVar[str]  # of a checkpoint, that holds them

    def __init__(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        self._arrays = {name: array.astype(np.float32) for name, array in arrays.items()}

    @classmethod
    def from_npz(cls, content: bytes) -> Self:
        """Reads the arrays as training writes them.

        Raises:
            ValueError: the content is something else.
        """
        try:
            with np.load(io.BytesIO(content)) as arrays:
                return cls(arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{cls.file} holds no arrays: {error}") from None
