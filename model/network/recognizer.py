"""What a checkpoint's weights make: a Perceiver behind its normalisation, with its novelty head."""

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from model.checkpoint.card import InputSpec
from model.checkpoint.folder import NOVELTY_PREFIX, WEIGHTS_FILE, Checkpoint, CheckpointError
from model.network.folded import FoldedPerceiver
from model.network.perceiver import Perceiver

HIDDEN, DROPOUT = 64, 0.2  # of the novelty head: width, and dropout in training


class NoveltyHead(nn.Module):
    """Summaries of the latents -> how unlike all classes, in [0, 1]; 0.5 is the threshold."""

    mean: Tensor
    deviation: Tensor
    threshold: Tensor

    def __init__(self, depth: int, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(depth * latent_dim))
        self.register_buffer("deviation", torch.ones(depth * latent_dim))
        self.register_buffer("threshold", torch.zeros(()))
        self.network = nn.Sequential(
            nn.Linear(depth * latent_dim, HIDDEN),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, 1),
        )

    def forward(self, summaries: Tensor) -> Tensor:
        """Means over the latents after each block (B, depth, D) -> novelty (B,)."""
        return torch.sigmoid(self.score(summaries) - self.threshold)

    def score(self, summaries: Tensor) -> Tensor:
        """(B, depth, D) -> log-odds of an outlier (B,), before the threshold."""
        scores: Tensor = self.network((summaries.flatten(1) - self.mean) / self.deviation)
        return scores[:, 0]


class InputClassifier(nn.Module):
    """A Perceiver behind its normalisation."""

    def __init__(self, perceiver: Perceiver, spec: InputSpec) -> None:
        super().__init__()
        self.perceiver = perceiver
        self.spec = spec
        self.scale = 1 / (spec.unit * spec.std)
        self.offset = -spec.mean / spec.std

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, C, *shape), of the spec's dtype or float -> logits (B, classes)."""
        logits: Tensor = self.perceiver(self.normalise(values))
        return logits

    def summaries(self, values: Tensor) -> Tensor:
        """Values (B, C, *shape) -> mean over the latents after each block, (B, depth, D)."""
        return self.perceiver.summaries(self.normalise(values))

    def classify(self, summaries: Tensor) -> Tensor:
        """Summaries (B, depth, D) -> logits (B, classes)."""
        return self.perceiver.classify(summaries)

    def normalise(self, values: Tensor) -> Tensor:
        """Values -> the Perceiver's input, float32 of the same shape."""
        return values.float() * self.scale + self.offset


class Recognizer(nn.Module):
    """The classifier, and how unlike its classes each sample is."""

    def __init__(self, classifier: InputClassifier | FoldedPerceiver, novelty: NoveltyHead) -> None:
        super().__init__()
        self.classifier = classifier
        self.novelty = novelty

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B, C, *shape) -> logits (B, classes), novelty (B,) in [0, 1].

        A sample of zeros alone shows nothing: its novelty is 1.
        """
        values = values.float()
        summaries = self.classifier.summaries(values)
        novelty = self.novelty(summaries)
        blank = values.amax(dim=tuple(range(1, values.ndim))) == 0
        novelty = torch.where(blank, torch.ones_like(novelty), novelty)
        return self.classifier.classify(summaries), novelty


def folded(recognizer: Recognizer) -> Recognizer:
    """What an engine runs: the same function with its constants worked out."""
    classifier = plain_classifier(recognizer)
    perceiver = FoldedPerceiver(classifier.perceiver, classifier.spec)
    return Recognizer(perceiver, recognizer.novelty).eval()


def plain_classifier(recognizer: Recognizer) -> InputClassifier:
    """The classifier of a recognizer that is not folded."""
    if not isinstance(recognizer.classifier, InputClassifier):
        raise TypeError("the recognizer is folded")
    return recognizer.classifier


class InputExplainer(nn.Module):
    """A classifier that also tells where it looked."""

    def __init__(self, classifier: InputClassifier) -> None:
        super().__init__()
        self.perceiver = classifier.perceiver
        self._normalise = classifier.normalise

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B, C, *shape) -> logits (B, classes), attention (B, depth, H, L, *grid)."""
        return self.perceiver.forward_with_attention(self._normalise(values))


def pack_weights(recognizer: Recognizer) -> bytes:
    """The content of model.safetensors: the Perceiver's arrays, and the novelty head's."""
    novelty = recognizer.novelty.state_dict()
    return safetensors.torch.save(
        plain_classifier(recognizer).perceiver.state_dict()
        | {f"{NOVELTY_PREFIX}{name}": array for name, array in novelty.items()}
    )


def load_perceiver(checkpoint: Checkpoint) -> Perceiver:
    """The checkpoint's Perceiver, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the weights do not fit the card's model config.
    """
    return plain_classifier(load_recognizer(checkpoint)).perceiver


def load_recognizer(checkpoint: Checkpoint) -> Recognizer:
    """What the checkpoint's weights make, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the weights do not fit the card's model config.
    """
    config = checkpoint.card.model
    try:
        perceiver = Perceiver(**config.arguments())
        head = NoveltyHead(config.depth, config.latent_dim)
        arrays = safetensors.torch.load(checkpoint.weights)
        of_head = {name for name in arrays if name.startswith(NOVELTY_PREFIX)}
        perceiver.load_state_dict({name: arrays[name] for name in arrays.keys() - of_head})
        head.load_state_dict({name.removeprefix(NOVELTY_PREFIX): arrays[name] for name in of_head})
    except (RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{checkpoint.folder / WEIGHTS_FILE}: {error}") from None
    return Recognizer(InputClassifier(perceiver, checkpoint.card.input), head).eval()
