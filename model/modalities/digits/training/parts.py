"""Learns to find the digits of a number, from strips of training digits."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.evaluation.suite import Subject
from model.modalities.digits.reading.extents import ExtentNetwork
from model.modalities.digits.reading.learned import EXTENTS_FILE, JUDGE_FILE
from model.modalities.digits.training.extents import CLOSE, fit_extents
from model.modalities.digits.training.judge import fit_judge


def fit_parts(
    subject: Subject,
    seed: int,
    strips: int = 12_000,
    steps: int = 8_500,
    judged_strips: int = 3_000,
) -> dict[str, bytes]:
    """Trains the network that parts digits, then the judge of what the checkpoint reads there.

    Returns: the files of a checkpoint's folder for parts, by name.
    """
    network, close = fit_extents(subject.dataset.train, strips, steps, seed)
    print(f"{close:.1%} of held-out ink within {CLOSE} of a height", flush=True)
    judge, right = fit_judge(subject, ExtentNetwork(network), judged_strips, seed)
    print(f"{right:.1%} of held-out lines parted right", flush=True)
    return {EXTENTS_FILE: _npz(network), JUDGE_FILE: _npz(judge)}


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    # NumPy's stub takes the names for its flag.
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
