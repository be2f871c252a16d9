"""How accuracy holds under the corruptions of MNIST-C, on the service's own way in."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint.card import InputSpec
from model.data.labelled import Labelled
from model.modalities.digits.form import prepare
from model.modalities.digits.synthetic.mnist_c import CORRUPTIONS, Images, corrupt

Reader = Callable[[Images], NDArray[np.int64]]  # inputs (N, 1, 28, 28) -> classes (N,)

SEED = 0


@dataclass(frozen=True)
class Accuracy:
    """Of one model under one corruption, in [0, 1]."""

    uploaded: float  # the corrupted picture through `prepare`, as the service reads it
    raw: float  # the corrupted pixels as the model's input


def accuracies(
    readers: Mapping[str, Reader], data: Labelled, spec: InputSpec, seed: int = SEED
) -> Iterator[tuple[str, dict[str, Accuracy]]]:
    """Each corruption's name and every reader's accuracy under it, as soon as it is known."""
    for name in CORRUPTIONS:
        corrupted = corrupt(data.inputs[:, 0], name, seed)
        uploaded = prepare_all(corrupted, spec)
        yield (
            name,
            {
                who: Accuracy(
                    uploaded=float((read(uploaded) == data.labels).mean()),
                    raw=float((read(corrupted[:, None]) == data.labels).mean()),
                )
                for who, read in readers.items()
            },
        )


def prepare_all(pictures: Images, spec: InputSpec) -> Images:
    """Grey pictures (N, H, W), each through `prepare` as an upload would be: (N, 1, 28, 28)."""
    return np.stack([prepare(Image.fromarray(picture), spec) for picture in pictures])


def table(measured: Mapping[str, Mapping[str, Accuracy]]) -> str:
    """Corruption -> reader -> accuracy, as text for a terminal; the mean and the worst last."""
    readers = list(next(iter(measured.values())))
    lines = [
        " " * 14 + "".join(f"{who:>20}" for who in readers),
        f"{'corruption':<14}" + f"{'uploaded':>11}{'raw':>9}" * len(readers),
    ]
    shares = np.array(
        [[[row[who].uploaded, row[who].raw] for who in readers] for row in measured.values()]
    )
    rows = [*zip(measured, shares, strict=True), ("mean", shares.mean(0)), ("worst", shares.min(0))]
    for name, cells in rows:
        lines.append(f"{name:<14}" + "".join(f"{up:>11.2%}{raw:>9.2%}" for up, raw in cells))
    return "\n".join(lines)
