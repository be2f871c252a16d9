"""Trained weights -> a checkpoint: calibrate, fit the novelty head, score, export, draw.

`python -m model.training.finish weights/perceiver-mnist --data FOLDER --version 2.2.1` does it anew for a
checkpoint that is there, as after a change of preprocessing; its weights stay as they are.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint.card import VERSION_PATTERN, Card, DatasetInfo, NoveltyFigures, TrainingRecord
from model.checkpoint.config import PerceiverConfig, Preprocessing
from model.checkpoint.folder import CheckpointError, read_checkpoint, read_files, write_checkpoint
from model.data.labelled import DatasetError, LabelledImages, split
from model.data.mnist import MNIST, load_mnist
from model.evaluation import plots
from model.evaluation.scores import (
    calibration_bins,
    fit_calibration,
    predict,
    score,
    summarise,
    table,
)
from model.network.perceiver import Perceiver
from model.network.recognizer import PixelClassifier, Recognizer, load_perceiver
from model.training.export import ExportError, exported_files
from model.training.novelty import fit_novelty

DIGITS_PER_OUTLIER = 12  # training images that the novelty head sees for each picture of a kind


def finish(
    perceiver: Perceiver,
    config: PerceiverConfig,
    preprocessing: Preprocessing,
    train: LabelledImages,
    validation: LabelledImages,
    mnist: MNIST,
    record: TrainingRecord,
    name: str,
    version: str,
) -> tuple[Card, dict[str, bytes]]:
    """Everything of a checkpoint but the run's history.

    Args:
        perceiver: trained, on the CPU; `config` are its arguments.
        train, validation: the parts of `mnist.train` that taught and that chose.

    Returns: the card, and the files by relative path.

    Raises:
        ExportError: the exported graphs compute something else.
    """
    recipe = record.recipe
    classifier = PixelClassifier(perceiver, preprocessing).eval()
    novelty = fit_novelty(
        lambda images: summarise(classifier, images),
        train.images[: DIGITS_PER_OUTLIER * recipe.outliers],
        validation.images,
        preprocessing,
        recipe.augment,
        recipe.outliers,
        recipe.seed,
    )
    recognizer = Recognizer(classifier, novelty).eval()
    (logits, novelties), (test_logits, test_novelties) = (
        predict(recognizer, part.images) for part in (validation, mnist.test)
    )
    calibration = fit_calibration(logits, validation.labels)
    card = Card(
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        parameters=sum(p.numel() for p in recognizer.parameters()),
        model=config,
        labels=mnist.class_names,
        preprocessing=preprocessing,
        calibration=calibration,
        metrics={
            "validation": score(logits, validation.labels, mnist.class_names, calibration),
            "test": score(test_logits, mnist.test.labels, mnist.class_names, calibration),
        },
        novelty=NoveltyFigures(
            validation_false_alarms=float((novelties > 0.5).mean()),
            test_false_alarms=float((test_novelties > 0.5).mean()),
        ),
        dataset=DatasetInfo(
            name=mnist.name,
            sha256=mnist.digest,
            train=len(train),
            validation=len(validation),
            test=len(mnist.test),
        ),
        training=record,
    )
    return card, {
        **exported_files(recognizer),
        **_drawn(classifier, validation.images[0], mnist, calibration.probabilities(test_logits)),
    }


def _drawn(
    classifier: PixelClassifier,
    example: NDArray[np.uint8],
    mnist: MNIST,
    probabilities: NDArray[np.float64],
) -> dict[str, bytes]:
    """Plots of the test set's probabilities (N, classes), and of where the model looks."""
    images, labels = mnist.test.images, mnist.test.labels
    predicted = probabilities.argmax(axis=1)
    with torch.inference_mode():
        pixels = torch.tensor(example)[None, None]
        _, attention = classifier.perceiver.forward_with_attention(classifier.normalise(pixels))
    return {
        "plots/confusion.png": plots.confusion_matrix(labels, predicted, mnist.class_names),
        "plots/misread.png": plots.misread_images(images, labels, probabilities, mnist.class_names),
        "plots/reliability.png": plots.reliability_diagram(
            *calibration_bins(probabilities.max(axis=1), predicted == labels)
        ),
        "plots/attention.png": plots.attention_maps(example, attention[0].numpy()),
    }


def refinish(folder: Path, data: Path | None, version: str) -> Card:
    """Finishes the weights of a checkpoint anew, in place; the run's history stays.

    Raises:
        CheckpointError: the folder is no usable checkpoint.
        DatasetError: the data set cannot be had.
        ExportError: see `finish`.
    """
    checkpoint = read_checkpoint(folder)
    former = checkpoint.card
    recipe = former.training.recipe
    mnist = load_mnist(data)
    train, validation = split(mnist.train, recipe.validation_images, recipe.seed)
    card, files = finish(
        load_perceiver(checkpoint),
        former.model,
        former.preprocessing,
        train.take(np.arange(former.dataset.train)),
        validation,
        mnist,
        former.training,
        former.name,
        version,
    )
    return write_checkpoint(folder, card, read_files(checkpoint) | files)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, or 2 where the checkpoint can't be finished."""
    parser = argparse.ArgumentParser(
        prog="python -m model.training.finish", description=refinish.__doc__
    )
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("--data", type=Path, help="folder of MNIST's IDX files; else downloaded")
    parser.add_argument("--version", required=True, help="the checkpoint's new semantic version")
    options = parser.parse_args(argv)
    if not re.match(VERSION_PATTERN, options.version):
        parser.error(f"{options.version} is no semantic version, such as 2.1.0")
    try:
        card = refinish(options.checkpoint, options.data, options.version)
    except (CheckpointError, DatasetError, ExportError) as error:
        print(f"model.training.finish: {error}", file=sys.stderr)
        return 2
    print(f"{card.name} {card.version}\n\n{table(card.metrics['test'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
