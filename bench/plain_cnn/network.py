"""The plain network: its layers, its training, its answers."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from model.data.labelled import Labelled


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
    """Adam at 1e-3 on the images as they are, without augmentation; ends in evaluation mode."""
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


def read(network: PlainCNN, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Images (N, 1, 28, 28) -> the most probable classes (N,)."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        classes = [
            network(_inputs(batch.to(device))).argmax(1).cpu()
            for batch in torch.tensor(images).split(500)
        ]
    return torch.cat(classes).numpy()


def _inputs(images: Tensor) -> Tensor:
    return images.float() / 255
