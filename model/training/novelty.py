"""Tells samples of no class from those of the classes, by what the latents hold of them.

A small network on the latents' means after each block, trained once the Perceiver is: known
samples, plain and augmented, against samples of no class (outlier exposure: Hendrycks et al., ICLR
2019). Measured against confidence, energy, Mahalanobis distance and nearest neighbours in
docs/experiments.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.modalities.training import NoveltySamples
from model.network.recognizer import NoveltyHead

FALSE_ALARMS = 0.01  # share of the validation samples that the threshold takes for novel
EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 15, 512, 2e-3, 0.05
AUGMENTED_AT_ONCE = 500

Inputs = NDArray[Any]  # (N, C, *shape)
Summaries = Callable[[Inputs], NDArray[np.float32]]  # inputs -> (N, depth, D)
Augmentation = Callable[[Tensor, torch.Generator], Tensor]  # float32 (B, C, *shape) -> the same


def fit_novelty(
    summaries: Summaries,
    samples: NoveltySamples,
    validation: Inputs,
    augmentation: Augmentation,
    seed: int,
) -> NoveltyHead:
    """Trains the head and sets its threshold.

    Args:
        summaries: the trained Perceiver's.
        samples: to learn from.
        validation: held-out samples, of which `FALSE_ALARMS` are to score above 0.5.
        augmentation: of known and of unlike samples alike, so that damage alone is not novel.
        seed: of all that is random.

    Returns: the head in evaluation mode, on the CPU.
    """
    known, unlike = (
        torch.tensor(summaries(np.concatenate([*parts, _augmented(parts[0], augmentation, seed)])))
        for parts in ((samples.known, samples.known_otherwise), (samples.unlike,))
    )
    features = torch.cat([known, unlike])
    targets = torch.cat([torch.zeros(len(known)), torch.ones(len(unlike))])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = NoveltyHead(*features.shape[1:])
        head.mean.copy_(features.flatten(1).mean(dim=0))
        head.deviation.copy_(features.flatten(1).std(dim=0).clamp(min=1e-4))
        _train(head, features, targets, unlike_weight=len(known) / len(unlike))
    head.eval()
    with torch.inference_mode():
        scores = head.score(torch.tensor(summaries(validation)))
    head.threshold.copy_(scores.quantile(1 - FALSE_ALARMS))
    return head


def _train(head: NoveltyHead, features: Tensor, targets: Tensor, unlike_weight: float) -> None:
    batches = max(1, len(features) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    weight = torch.tensor(unlike_weight)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(features)).tensor_split(batches):
            loss = F.binary_cross_entropy_with_logits(
                head.score(features[chosen]), targets[chosen], pos_weight=weight
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _augmented(inputs: Inputs, augmentation: Augmentation, seed: int) -> Inputs:
    """Changes each sample in its own way, in an order of chance."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(inputs), generator=generator)
    changed = [
        augmentation(part.float(), generator)
        for part in torch.tensor(inputs)[order].split(AUGMENTED_AT_ONCE)
    ]
    whole: Inputs = torch.cat(changed).numpy()
    if np.issubdtype(inputs.dtype, np.integer):
        whole = whole.round()
    return whole.astype(inputs.dtype)
