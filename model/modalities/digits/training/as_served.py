"""Training digits as the service meets them: uploaded as pictures, and cut out of numbers.

What `model.modalities.digits.form` and `model.modalities.digits.reading.segment` make of a picture is not quite what MNIST's authors
made: a redrawn line, a trace of what was beside it. A model that has seen that reads it better.
"""

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint.card import InputSpec
from model.data.labelled import Labelled
from model.modalities.digits.form import prepare_file
from model.modalities.digits.reading.segment import find_marks, segment
from model.modalities.digits.synthetic.strips import training_strip
from model.modalities.digits.synthetic.user_pictures import MIXED, user_pictures
from model.modalities.digits.training.strip_labels import digits_held

PICTURE_KINDS = ("plain", "thin pen", "thumbnail", "broken strokes", MIXED, MIXED)
LONGEST_STRIP = 5
CHUNK = 100  # digits, or strips, that a process makes at a time


def served_digits(
    digits: Labelled,
    uploads: int,
    strips: int,
    spec: InputSpec,
    seed: int,
    progress: bool = False,
) -> Labelled | None:
    """Training digits in the model's form, as the service would bring them there.

    Args:
        digits: to draw from, as in MNIST.
        uploads: digits to upload, about evenly over the kinds `PICTURE_KINDS`.
        strips: numbers to write, of one to `LONGEST_STRIP` digits; each digit that is cut out of
            one whole counts as often as there are ways to cut it out.
        spec: the form.
        seed: decides everything; the machine's number of cores does not.
        progress: whether a bar shows on the terminal.

    Returns: none where neither is asked for.
    """
    if not uploads + strips:
        return None
    random = np.random.default_rng(seed)
    tasks = [("strips", start) for start in range(0, strips, CHUNK)]
    tasks += [(PICTURE_KINDS[start // CHUNK % len(PICTURE_KINDS)], start) for start in range(0, uploads, CHUNK)]
    chosen = [digits.take(random.permutation(len(digits))[: CHUNK * LONGEST_STRIP]) for _ in tasks]
    counts = [min(CHUNK, (strips if kind == "strips" else uploads) - at) for kind, at in tasks]
    seeds = [int(random.integers(2**32)) for _ in tasks]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        made = pool.map(
            _make, [kind for kind, _ in tasks], chosen, counts, repeat(spec), seeds
        )
        parts = list(tqdm(made, "served digits", len(tasks), disable=not progress, leave=False))
    return functools.reduce(Labelled.joined, parts)


def _make(
    kind: str, digits: Labelled, count: int, spec: InputSpec, seed: int
) -> Labelled:
    if kind == "strips":
        cut = list(_cut_out(digits, count, spec, np.random.default_rng(seed)))
        labels = [label for _, label in cut]
        return Labelled(np.stack([image for image, _ in cut]), np.array(labels, np.int64))
    digits = digits.take(np.arange(count))
    files = user_pictures(digits.inputs[:, 0], kind, seed)
    prepared = [prepare_file(content, spec) for content in files]
    return Labelled(np.stack(prepared), digits.labels)


def _cut_out(
    digits: Labelled, strips: int, spec: InputSpec, random: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Digits (1, H, W) as the reading of numbers cuts them out, with their labels."""
    for number in range(strips):
        strip = training_strip(digits, number, random, LONGEST_STRIP)
        found = segment(find_marks(strip.picture, strip.picture.size), spec)
        for candidate, held in zip(found.candidates, digits_held(found, strip), strict=True):
            if held:
                yield candidate.pixels, int(strip.text[held - 1])
