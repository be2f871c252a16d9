"""The corruption suite of a plain CNN and of a checkpoint: `python -m bench.plain_cnn`."""

import argparse
from pathlib import Path

from bench.plain_cnn.network import read, train
from bench.tools.machine import WEIGHTS
from model.checkpoint.folder import read_checkpoint
from model.data.mnist import load_mnist
from model.evaluation.predictions import predict
from model.modalities.digits.robustness import accuracies, table
from model.network.device import find_device
from model.network.recognizer import load_recognizer


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.plain_cnn", description=__doc__.partition(":")[0]
    )
    parser.add_argument("--data", type=Path, help="folder of MNIST's IDX files; else downloaded")
    parser.add_argument(
        "--checkpoint", type=Path, default=WEIGHTS, help="default weights/perceiver-mnist"
    )
    parser.add_argument("--epochs", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options = parser.parse_args()
    device = find_device(options.device)
    checkpoint = read_checkpoint(options.checkpoint)
    mnist = load_mnist(options.data, checkpoint.card.input)
    recognizer = load_recognizer(checkpoint).to(device)
    network = train(mnist.train, options.epochs, options.seed, device)
    right = (read(network, mnist.test.inputs) == mnist.test.labels).mean()
    print(f"plain CNN, test set, uncorrupted: {right:.2%}", flush=True)
    readers = {
        checkpoint.card.name: lambda images: predict(recognizer, images)[0].argmax(axis=1),
        "plain CNN": lambda images: read(network, images),
    }
    print(table(dict(accuracies(readers, mnist.test, checkpoint.card.input))))


if __name__ == "__main__":
    main()
