"""Tells pictures without a digit from digits, by what the latents hold of them.

A small network on the latents' means after each block, trained once the Perceiver is: digits, plain
and augmented, against drawn outliers (outlier exposure: Hendrycks et al., ICLR 2019). Measured
against confidence, energy, Mahalanobis distance and nearest neighbours in `model/EXPERIMENTS.md`.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint.config import AugmentConfig, Preprocessing
from model.modalities.digits.form import prepare, prepare_file
from model.modalities.digits.synthetic.unlike import DIGIT_KINDS, TRAINING_KINDS, draw
from model.modalities.digits.synthetic.user_pictures import MIXED, make_uploads
from model.modalities.digits.training.augment import augment
from model.network.recognizer import NoveltyHead

FALSE_ALARMS = 0.01  # share of the validation digits that the threshold takes for novel
# Kinds of `model.modalities.digits.synthetic.user_pictures` that teach what a digit is.
UPLOADS = ("plain", "thin pen", "thick marker", MIXED)
EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 15, 512, 2e-3, 0.05

Images = NDArray[np.uint8]  # (N, H, W)
Summaries = Callable[[Images], NDArray[np.float32]]  # images -> (N, depth, D)


def fit_novelty(
    summaries: Summaries,
    digits: Images,
    validation: Images,
    preprocessing: Preprocessing,
    augmentation: AugmentConfig,
    outliers: int,
    seed: int,
) -> NoveltyHead:
    """Trains the head and sets its threshold.

    Args:
        summaries: the trained Perceiver's, of images in the model's form.
        digits: training images in the model's form (N, H, W).
        validation: held-out ones, of which `FALSE_ALARMS` are to score above 0.5.
        preprocessing: that brings the outliers into the model's form.
        augmentation: of digits and of outliers alike, so that damage alone is not novel.
        outliers: how many to draw of each kind, and of digits of each of `UPLOADS` and
            `DIGIT_KINDS`.
        seed: of all that is random.

    Returns: the head in evaluation mode, on the CPU.
    """
    drawn, unwritten = (
        np.stack(
            [
                prepare(picture, preprocessing)[0]
                for kind in kinds
                for picture in draw(kind, outliers, digits, seed)
            ]
        )
        for kinds in (TRAINING_KINDS, DIGIT_KINDS)
    )
    uploaded = np.stack(
        [
            prepare_file(content, preprocessing)[0]
            for name in UPLOADS
            for content in make_uploads(digits[:outliers], name, seed)
        ]
    )
    inlying, outlying = (
        torch.tensor(summaries(np.concatenate([*parts, _augmented(parts[0], augmentation, seed)])))
        for parts in ((digits, uploaded, unwritten), (drawn,))
    )
    features = torch.cat([inlying, outlying])
    targets = torch.cat([torch.zeros(len(inlying)), torch.ones(len(outlying))])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = NoveltyHead(*features.shape[1:])
        head.mean.copy_(features.flatten(1).mean(dim=0))
        head.deviation.copy_(features.flatten(1).std(dim=0).clamp(min=1e-4))
        _train(head, features, targets, outlier_weight=len(inlying) / len(outlying))
    head.eval()
    with torch.inference_mode():
        scores = head.score(torch.tensor(summaries(validation)))
    head.threshold.copy_(scores.quantile(1 - FALSE_ALARMS))
    return head


def _train(head: NoveltyHead, features: Tensor, targets: Tensor, outlier_weight: float) -> None:
    batches = max(1, len(features) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    weight = torch.tensor(outlier_weight)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(features)).tensor_split(batches):
            loss = F.binary_cross_entropy_with_logits(
                head.score(features[chosen]), targets[chosen], pos_weight=weight
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _augmented(images: Images, config: AugmentConfig, seed: int) -> Images:
    """Each image changed in its own way, in an order of chance."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    changed = [
        augment(part[:, None].float(), config, generator)[:, 0].round().byte()
        for part in torch.tensor(images)[order].split(500)
    ]
    return torch.cat(changed).numpy()
