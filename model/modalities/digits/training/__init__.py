"""What digits add to training: augmentation, made samples, suites, and the learning of parts."""

from functools import partial

from model.data.mnist import load_mnist
from model.modalities.digits.modality import SPEC
from model.modalities.digits.suites import SUITES
from model.modalities.digits.training.as_served import served_digits
from model.modalities.digits.training.augment import augment
from model.modalities.digits.training.novelty_samples import novelty_samples
from model.modalities.digits.training.parts import fit_parts
from model.modalities.training import Training

TRAINING = Training(
    load=partial(load_mnist, spec=SPEC),
    augment=augment,
    unlike=novelty_samples,
    suites=SUITES,
    extra=served_digits,
    fit_parts=fit_parts,
)
