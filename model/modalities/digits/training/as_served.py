"""Training digits as the service meets them: uploaded as pictures, and cut out of numbers.

What the service makes of a picture is not quite what MNIST's authors made: a redrawn line, a trace
of what was beside it. A model that has seen that reads it better.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint.card import InputSpec
from model.data.labelled import Labelled
from model.errors import UserError
from model.modalities.digits.form import prepare_file
from model.modalities.digits.reading.extents import ExtentNetwork
from model.modalities.digits.reading.learned import EXTENTS_FILE
from model.modalities.digits.reading.marks import find_marks
from model.modalities.digits.reading.segment import segment
from model.modalities.digits.synthetic.strips import training_strip
from model.modalities.digits.synthetic.user_pictures import MIXED, user_pictures
from model.modalities.digits.training.options import DigitOptions
from model.modalities.digits.training.strip_labels import digits_held

PICTURE_KINDS = ("plain", "thin pen", "thumbnail", "broken strokes", MIXED, MIXED)
STRIPS = "strips"
LONGEST_STRIP = 5
CHUNK = 100  # digits, or strips, that a process makes at a time


def served_digits(
    digits: Labelled,
    spec: InputSpec,
    options: DigitOptions,
    learned: Mapping[str, bytes],
    seed: int,
    progress: bool = False,
) -> Labelled | None:
    """Training digits in the model's form, as the service would bring them there.

    Args:
        digits: to draw from, as in MNIST.
        spec: the form.
        options: how many: `uploads`, about evenly over `PICTURE_KINDS`; `strips`, numbers of one to
            `LONGEST_STRIP` digits. Each digit that is cut out of one whole counts as often as there
            are ways to cut it out.
        learned: a checkpoint's files for finding digits, which strips need.
        seed: decides everything; the machine's number of cores does not.
        progress: whether a bar shows on the terminal.

    Returns: none where the options ask for none.

    Raises:
        UserError: strips are asked for, but nothing has learned to find digits.
    """
    uploads, strips = options.uploads, options.strips
    if not uploads + strips:
        return None
    if strips and EXTENTS_FILE not in learned:
        raise UserError("--strips needs --start-from a checkpoint that finds the digits of numbers")
    network = ExtentNetwork.from_npz(learned[EXTENTS_FILE]) if strips else None
    random = np.random.default_rng(seed)
    tasks = [(STRIPS, start) for start in range(0, strips, CHUNK)]
    tasks += [
        (PICTURE_KINDS[start // CHUNK % len(PICTURE_KINDS)], start)
        for start in range(0, uploads, CHUNK)
    ]
    chosen = [digits.take(random.permutation(len(digits))[: CHUNK * LONGEST_STRIP]) for _ in tasks]
    counts = [min(CHUNK, (strips if kind == STRIPS else uploads) - at) for kind, at in tasks]
    seeds = [int(random.integers(2**32)) for _ in tasks]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        made = pool.map(
            _make,
            [kind for kind, _ in tasks],
            chosen,
            counts,
            repeat(spec),
            [network if kind == STRIPS else None for kind, _ in tasks],
            seeds,
        )
        parts = list(tqdm(made, "served digits", len(tasks), disable=not progress, leave=False))
    return functools.reduce(Labelled.joined, parts)


def _make(
    kind: str,
    digits: Labelled,
    count: int,
    spec: InputSpec,
    network: ExtentNetwork | None,
    seed: int,
) -> Labelled:
    if network is not None:
        cut = list(_cut_out(digits, count, spec, network, np.random.default_rng(seed)))
        labels = [label for _, label in cut]
        return Labelled(np.stack([image for image, _ in cut]), np.array(labels, np.int64))
    digits = digits.take(np.arange(count))
    files = user_pictures(digits.inputs[:, 0], kind, seed)
    prepared = [prepare_file(content, spec) for content in files]
    return Labelled(np.stack(prepared), digits.labels)


def _cut_out(
    digits: Labelled,
    strips: int,
    spec: InputSpec,
    network: ExtentNetwork,
    random: np.random.Generator,
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Digits (1, H, W) as the reading of numbers cuts them out, with their labels."""
    for number in range(strips):
        strip = training_strip(digits, number, random, LONGEST_STRIP)
        found = segment(find_marks(strip.picture, strip.picture.size), spec, network)
        for candidate, held in zip(found.candidates, digits_held(found, strip), strict=True):
            if held:
                yield candidate.pixels, int(strip.text[held - 1])
