"""Trains the network that parts touching digits.

It sees lines of strips as `reading.marks` of this modality finds them. Whose each pixel is, is
known.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm, trange

from model.data.labelled import Labelled
from model.modalities.digits.reading.extents import DIGIT, scaled
from model.modalities.digits.reading.marks import find_marks, line_coverage
from model.modalities.digits.synthetic.strips import Strip, any_style, write

CHANNELS = (24, 48, 72)  # fine, middle, coarse
LONGEST = 6
CHUNK = 100  # strips that a process makes at a time
HELD_OUT = 20  # one strip of so many
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 24, 3e-3, 1e-3, 0.1
NAMING = 0.15  # weight of naming the digits
ROWS, COLUMNS = 40, 104  # of a training window
LEAST_COVERAGE = 60  # that counts as ink
CLOSE = 0.15  # heights of a digit


class ExtentNet(nn.Module):
    """Coverage (B, 1, H, W) -> reaches (B, 2, H, W), and class scores (B, 10, H / 2, W / 2)."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = CHANNELS
        self.layers = nn.ModuleDict(
            {
                "fine_0": _convolution(4, fine),
                "fine_1": _convolution(fine, fine),
                "fine_2": _convolution(fine, fine),
                "middle_0": _convolution(fine, middle),
                "middle_1": _convolution(middle, middle),
                "middle_2": _convolution(middle, middle),
                "coarse_0": _convolution(middle, coarse),
                "coarse_1": _convolution(coarse, coarse),
                "coarse_2": _convolution(coarse, coarse),
                "to_middle": nn.Conv2d(coarse, middle, 1),
                "to_fine": nn.Conv2d(middle, fine, 1),
                "reaches": nn.Conv2d(fine, 8, 1),
                "names": nn.Conv2d(fine, 10, 1),
            }
        )

    def forward(self, coverage: Tensor) -> tuple[Tensor, Tensor]:
        """The same as `ExtentNetwork` in PyTorch; rows and columns in multiples of its STEP."""
        layers = self.layers
        fine = layers["fine_1"](layers["fine_0"](F.pixel_unshuffle(coverage, 2)))
        middle = layers["middle_1"](layers["middle_0"](F.max_pool2d(fine, 2)))
        coarse = layers["coarse_0"](F.max_pool2d(middle, 2))
        coarse = layers["coarse_2"](layers["coarse_1"](coarse))
        coarse = F.interpolate(layers["to_middle"](coarse), scale_factor=2)
        middle = layers["middle_2"](middle + coarse)
        fine = layers["fine_2"](fine + F.interpolate(layers["to_fine"](middle), scale_factor=2))
        return F.pixel_shuffle(layers["reaches"](fine), 2), layers["names"](fine)

    def arrays(self) -> dict[str, NDArray[np.float16]]:
        """What `ExtentNetwork` computes with: normalisation folded in, kernels flat."""
        result = {}
        for name, layer in self.layers.items():
            if isinstance(layer, nn.Sequential):
                kernel, norm = layer[0], layer[1]
                assert isinstance(kernel, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                layer = fuse_conv_bn_eval(kernel, norm)
            for part, array in layer.state_dict().items():
                flat = array.flatten(1) if array.ndim > 1 else array
                result[f"{name}.{part}"] = flat.numpy().astype(np.float16)
        return result


@dataclass(frozen=True)
class Example:
    """A line of a strip, in the network's scale."""

    coverage: NDArray[np.uint8]  # (H, W)
    owner: NDArray[np.uint8]  # (H, W), as a strip's
    ends: NDArray[np.float32]  # (owners, 2), columns
    classes: NDArray[np.int64]  # (owners,)


def fit_extents(
    digits: Labelled, strips: int, steps: int, seed: int
) -> tuple[dict[str, NDArray[np.float16]], float]:
    """Makes strips of training digits and trains the network on most of them.

    Returns: its arrays, and the share of held-out ink whose extents are told within `CLOSE`.
    """
    made = examples(digits, strips, seed)
    taught = [example for index, example in enumerate(made) if index % HELD_OUT]
    net, close = train(taught, made[::HELD_OUT], steps, seed)
    return net.arrays(), close


def examples(digits: Labelled, count: int, seed: int) -> list[Example]:
    """Lines of `count` strips; the seed decides everything, the number of cores nothing."""
    random = np.random.default_rng(seed)
    counts = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    chosen = [digits.take(random.permutation(len(digits))[: CHUNK * LONGEST]) for _ in counts]
    seeds = [int(random.integers(2**32)) for _ in counts]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        made = tqdm(pool.map(_make, chosen, counts, seeds), "strips", len(counts), mininterval=5)
        return [example for part in made for example in part]


def _make(digits: Labelled, count: int, seed: int) -> list[Example]:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, LONGEST + 1, count).tolist()
    strips = (write(digits, length, any_style(random), random) for length in lengths)
    return [example for strip in strips for example in lines_of(strip)]


def lines_of(strip: Strip) -> Iterator[Example]:
    """Its lines as they are found, in the network's scale."""
    marks = find_marks(strip.picture, strip.picture.size)
    width, height = (
        round(n / scale) for n, scale in zip(strip.picture.size, marks.scales, strict=True)
    )
    nearest = Image.Resampling.NEAREST
    owner = np.asarray(Image.fromarray(strip.owner).resize((width, height), nearest))
    ends = np.zeros((len(strip.text) + 1, 2), np.float32)
    for number in range(1, len(ends)):
        columns = np.flatnonzero((owner == number).any(axis=0))
        if len(columns):
            ends[number] = columns[0], columns[-1] + 1
    classes = np.array([0, *map(int, strip.text)])
    for line in marks.lines:
        coverage, top, left = line_coverage(line)
        small = scaled(coverage, line.height)
        rows, columns = (
            (((np.arange(n) + 0.5) * (m / n)).astype(np.int64) + start).clip(0, most - 1)
            for n, m, start, most in zip(
                small.shape, coverage.shape, (top, left), owner.shape, strict=True
            )
        )
        own = owner[rows[:, None], columns]
        yield Example(small, own, (ends - left) * np.float32(DIGIT / line.height), classes)


def batch(chosen: Sequence[Example], random: np.random.Generator) -> tuple[Tensor, ...]:
    """Windows of examples, at places and of a contrast of chance.

    Returns: coverage (B, 1, H, W), reaches (B, 2, H, W), where there is ink (B, 1, H, W), and
    classes (B, H / 2, W / 2).
    """
    shape = (ROWS, COLUMNS)
    coverage = np.zeros((len(chosen), 1, *shape), np.float32)
    reaches = np.zeros((len(chosen), 2, *shape), np.float32)
    inked = np.zeros((len(chosen), 1, *shape), np.float32)
    classes = np.zeros((len(chosen), *shape), np.int64)
    for index, example in enumerate(chosen):
        theirs, ours = [], []
        for size, room in zip(example.coverage.shape, shape, strict=True):
            start = int(random.integers(max(1, size - room + 1)))
            length = min(size, room)
            offset = int(random.integers(room - length + 1))
            theirs.append(slice(start, start + length))
            ours.append(slice(offset, offset + length))
        window, place = (theirs[0], theirs[1]), (ours[0], ours[1])
        ink = example.coverage[window] / np.float32(255)
        owner = example.owner[window]
        columns = np.arange(window[1].start, window[1].stop) + np.float32(0.5)
        coverage[index, 0][place] = ink ** np.exp(random.normal(0, 0.3))
        reaches[index][:, place[0], place[1]] = (
            example.ends[owner].transpose(2, 0, 1) - columns
        ) / DIGIT
        inked[index, 0][place] = (owner > 0) & (example.coverage[window] > LEAST_COVERAGE)
        classes[index][place] = example.classes[owner]
    arrays = coverage, reaches, inked, classes[:, ::2, ::2]
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)


def losses(net: ExtentNet, made: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """What is minimised, and the share of pixels whose extents are told within `CLOSE`."""
    coverage, reaches, inked, classes = made
    told, names = net(coverage.contiguous(memory_format=torch.channels_last))
    off = (told - reaches).abs()
    ink = inked.sum().clamp(min=1)
    coarse = inked[:, 0, ::2, ::2]
    naming = (F.cross_entropy(names, classes, reduction="none") * coarse).sum()
    loss = (off * inked).sum() / ink / 2 + NAMING * naming / coarse.sum().clamp(min=1)
    close = ((off.amax(dim=1, keepdim=True) < CLOSE) * inked).sum() / ink
    return loss, close


def train(
    taught: Sequence[Example], held_out: Sequence[Example], steps: int, seed: int
) -> tuple[ExtentNet, float]:
    """The network in evaluation mode, and its share of close pixels on what it was not taught."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    # PyTorch declares no overload of `to` that takes the format alone.
    net = ExtentNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARM_UP
    )
    for _ in trange(steps, desc="steps", mininterval=5):
        chosen = [taught[i] for i in random.integers(len(taught), size=BATCH_SIZE)]
        loss, _ = losses(net, batch(chosen, random))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    with torch.inference_mode():
        parts = [held_out[i : i + BATCH_SIZE] for i in range(0, len(held_out), BATCH_SIZE)]
        close = [float(losses(net, batch(part, random))[1]) for part in parts]
    return net, float(np.mean(close))


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    kernel = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(kernel, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
