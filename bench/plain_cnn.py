"""A plain convolutional network, the measure of the corruption suite: `python -m bench.plain_cnn`.

Trained the usual way: on MNIST as it is, without augmentation. Nothing else uses it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from model.data.labelled import DatasetError, Labelled
from model.data.mnist import load_mnist
from model.modalities.digits.modality import SPEC
from model.modalities.digits.robustness import accuracies, table
from model.modalities.digits.synthetic.mnist_c import Images
from model.network.device import DeviceError, find_device

WEIGHTS_FILE = "cnn.safetensors"
DEFAULT_FOLDER = Path("runs/plain-cnn")


class PlainCNN(nn.Sequential):
    """Two 3x3 convolutions, a maximum over 2x2, two dense layers: 28x28 -> 10 classes."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(12 * 12 * 64, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        )


def train(
    data: Labelled, epochs: int, seed: int, device: torch.device, batch_size: int = 128
) -> PlainCNN:
    """Adam at 1e-3 on the images as they are; in evaluation mode in the end."""
    torch.manual_seed(seed)
    network = PlainCNN().to(device)
    optimiser = torch.optim.Adam(network.parameters())
    images = torch.tensor(data.inputs).to(device)
    labels = torch.tensor(data.labels).to(device)
    for epoch in range(epochs):
        order = torch.randperm(len(labels)).split(batch_size)
        for batch in tqdm(order, f"epoch {epoch + 1}/{epochs}", leave=False):
            loss = F.cross_entropy(network(_inputs(images[batch])), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval()


def read(network: PlainCNN, images: Images) -> NDArray[np.int64]:
    """Images (N, 1, 28, 28) -> the most probable classes (N,)."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        classes = [
            network(_inputs(batch.to(device))).argmax(1).cpu()
            for batch in torch.tensor(images).split(500)
        ]
    return torch.cat(classes).numpy()


def load(folder: Path) -> PlainCNN | None:
    """The network that `main` left in a folder; none where there is none."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return None
    network = PlainCNN()
    network.load_state_dict(safetensors.torch.load_file(path))
    return network.eval()


def _inputs(images: Tensor) -> Tensor:
    return images.float() / 255


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, keeps the weights and prints the suite; returns 0, or 2 where it could not run."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.plain_cnn", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--data", type=Path, help="folder of MNIST's IDX files; else downloaded")
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="default %(default)s")
    parser.add_argument("--epochs", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options = parser.parse_args(argv)
    try:
        mnist = load_mnist(options.data)
        device = find_device(options.device)
    except (DatasetError, DeviceError) as error:
        print(f"bench.plain_cnn: {error}", file=sys.stderr)
        return 2
    network = train(mnist.train, options.epochs, options.seed, device)
    options.out.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(network.state_dict(), options.out / WEIGHTS_FILE)
    right = (read(network, mnist.test.inputs) == mnist.test.labels).mean()
    print(f"test set, uncorrupted: {right:.2%}", flush=True)
    readers = {"plain CNN": lambda images: read(network, images)}
    print(table(dict(accuracies(readers, mnist.test, SPEC))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
