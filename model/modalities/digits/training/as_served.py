"""Training digits as the service meets them: uploaded as pictures, and cut out of numbers.

What the service makes of a picture is not quite what MNIST's authors made: a redrawn line, a trace
of what was beside it. A model that has seen that reads it better.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial, reduce
from multiprocessing import get_context

import numpy as np
from tqdm import tqdm

from model.checkpoint.card import InputSpec
from model.data.labelled import Labelled
from model.errors import UserError
from model.modalities.digits.form import prepare_file
from model.modalities.digits.options import DigitOptions
from model.modalities.digits.reading.extents import ExtentNetwork
from model.modalities.digits.reading.learned import EXTENTS_FILE
from model.modalities.digits.reading.marks import find_marks
from model.modalities.digits.reading.segment import segment
from model.modalities.digits.synthetic.strips import training_strip
from model.modalities.digits.synthetic.user_pictures import MIXED, user_pictures
from model.modalities.digits.training.strip_labels import digits_held

_Make = Callable[[Labelled, int, int], Labelled]  # digits, how many, seed -> made of them

PICTURE_KINDS = ("plain", "thin pen", "thumbnail", "broken strokes", MIXED, MIXED)
LONGEST_STRIP = 5
CHUNK = 100  # digits, or strips, that a process makes at a time


def served_digits(
    digits: Labelled,
    spec: InputSpec,
    options: DigitOptions,
    learned: Mapping[str, bytes],
    seed: int,
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

    Returns: none where the options ask for none.

    Raises:
        UserError: strips are asked for, but nothing has learned to find digits.
    """
    random = np.random.default_rng(seed)
    makers: list[tuple[_Make, int]] = []  # with how many each makes
    if options.strips:
        if EXTENTS_FILE not in learned:
            raise UserError("--strips needs --start-from a checkpoint that finds digits in numbers")
        cut_out = partial(_cut_out, spec, ExtentNetwork.from_npz(learned[EXTENTS_FILE]))
        makers += [(cut_out, count) for count in _chunks(options.strips)]
    makers += [
        (partial(_uploaded, spec, PICTURE_KINDS[index % len(PICTURE_KINDS)]), count)
        for index, count in enumerate(_chunks(options.uploads))
    ]
    if not makers:
        return None
    chosen = [digits.take(random.permutation(len(digits))[: CHUNK * LONGEST_STRIP]) for _ in makers]
    seeds = [int(random.integers(2**32)) for _ in makers]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        made = [
            pool.submit(make, digits_, count, seed_)
            for (make, count), digits_, seed_ in zip(makers, chosen, seeds, strict=True)
        ]
        parts = [part.result() for part in tqdm(made, "served digits", disable=None, leave=False)]
    return reduce(Labelled.joined, parts)


def _chunks(total: int) -> list[int]:
    return [min(CHUNK, total - start) for start in range(0, total, CHUNK)]


def _uploaded(spec: InputSpec, kind: str, digits: Labelled, count: int, seed: int) -> Labelled:
    """The first digits as uploaded pictures of a kind."""
    digits = digits.take(np.arange(count))
    files = user_pictures(digits.inputs[:, 0], kind, seed)
    return Labelled(np.stack([prepare_file(file, spec) for file in files]), digits.labels)


def _cut_out(
    spec: InputSpec, network: ExtentNetwork, digits: Labelled, count: int, seed: int
) -> Labelled:
    """Digits as the reading of numbers cuts them out of so many strips."""
    random = np.random.default_rng(seed)
    images, labels = [], []
    for number in range(count):
        strip = training_strip(digits, number, random, LONGEST_STRIP)
        found = segment(find_marks(strip.picture, strip.picture.size), spec, network)
        for candidate, held in zip(found.candidates, digits_held(found, strip), strict=True):
            if held:
                images.append(candidate.pixels)
                labels.append(int(strip.text[held - 1]))
    return Labelled(np.stack(images), np.array(labels, np.int64))
