"""The first 1,000 images of MNIST's test set, which the tests upload."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIGITS = Path(__file__).parent / "data/digits-1000.npz"


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (1000, 28, 28) and labels (1000,)."""
    with np.load(DIGITS) as arrays:
        return arrays["images"], arrays["labels"]
