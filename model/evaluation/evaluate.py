"""Figures of a checkpoint: `python -m model.evaluation.evaluate weights/perceiver-mnist --data FOLDER`.

Prints accuracy, negative log-likelihood, calibration error and per-class figures on the test set,
stores them as JSON, and compares them with what the checkpoint's card claims.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from model.checkpoint.folder import CheckpointError, read_checkpoint
from model.data.labelled import DatasetError, split
from model.data.mnist import load_mnist
from model.evaluation.scores import broken_claims, predict, score, table
from model.evaluation.suite import Subject
from model.modalities.digits.suites import SUITES
from model.network.device import DeviceError, find_device
from model.network.recognizer import load_recognizer


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 1 where the card's claims do not hold, 2 where nothing could run."""
    parser = argparse.ArgumentParser(prog="perceiver evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("--data", type=Path, help="folder of MNIST's IDX files; else downloaded")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--suite", choices=SUITES, help="figures beyond the test set's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--out", type=Path, help="JSON file; default runs/evaluation-NAME-PART.json, or -SUITE"
    )
    options = parser.parse_args(argv)
    try:
        checkpoint = read_checkpoint(options.checkpoint)
        recognizer = load_recognizer(checkpoint).to(find_device(options.device))
        mnist = load_mnist(options.data)
    except (CheckpointError, DatasetError, DeviceError) as error:
        print(f"perceiver evaluate: {error}", file=sys.stderr)
        return 2
    card = checkpoint.card
    out = options.out or Path(f"runs/evaluation-{card.name}-{options.suite or options.part}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    if options.suite:
        report = SUITES[options.suite](
            Subject(card, recognizer, partial(predict, recognizer), mnist)
        )
        out.write_text(json.dumps(report.figures, indent=2) + "\n")
        print(f"{card.name} {card.version}, {options.suite}\n\n{report.table}\n\n-> {out}")
        return 0
    recipe = card.training.recipe
    part = mnist.test
    if options.part == "validation":
        part = split(mnist.train, recipe.validation_images, recipe.seed)[1]
    logits, _ = predict(recognizer, part.images)
    measured = score(logits, part.labels, card.labels, card.calibration)

    out.write_text(measured.model_dump_json(indent=2) + "\n")
    print(
        f"{card.name} {card.version}, {mnist.name} {options.part}\n\n{table(measured)}\n\n-> {out}"
    )
    if options.part not in card.metrics:
        print(f"The card claims nothing of {options.part}.")
        return 0
    broken = broken_claims(measured, card.metrics[options.part])
    print("\n".join(broken) if broken else "The card's claims hold.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
