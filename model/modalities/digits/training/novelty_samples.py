"""What the novelty head learns from: digits in many guises, and pictures that show no digit."""

import numpy as np

from model.checkpoint.card import InputSpec
from model.data.labelled import Labelled
from model.modalities.digits.form import prepare, prepare_file
from model.modalities.digits.options import DigitOptions
from model.modalities.digits.synthetic.unlike import DIGIT_KINDS, TRAINING_KINDS, draw
from model.modalities.digits.synthetic.user_pictures import MIXED, user_pictures
from model.modalities.training import NoveltySamples

DIGITS_PER_PICTURE = 12  # training digits for each picture of a kind
# Of `model.modalities.digits.synthetic.user_pictures`.
PICTURE_KINDS = ("plain", "thin pen", "thick marker", MIXED)


def novelty_samples(
    digits: Labelled, spec: InputSpec, options: DigitOptions, seed: int
) -> NoveltySamples:
    """Makes `options.outliers` pictures of each kind; those of digits show the first ones."""
    each = options.outliers
    known = digits.inputs[: DIGITS_PER_PICTURE * each]
    images = known[:, 0]
    unlike, unwritten = (
        [prepare(picture, spec) for kind in kinds for picture in draw(kind, each, images, seed)]
        for kinds in (TRAINING_KINDS, DIGIT_KINDS)
    )
    uploaded = [
        prepare_file(content, spec)
        for kind in PICTURE_KINDS
        for content in user_pictures(images[:each], kind, seed)
    ]
    return NoveltySamples(known, np.stack([*uploaded, *unwritten]), np.stack(unlike))
