"""Figures of a checkpoint: measured, stored as JSON, and compared with what its card claims."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from model.checkpoint.folder import read_checkpoint
from model.errors import UserError
from model.evaluation.faithfulness import faithfulness
from model.evaluation.scores import broken_claims, score, table
from model.evaluation.suite import Subject, Suite
from model.modalities import find
from model.network.device import find_device
from model.network.recognizer import load_recognizer

GENERAL_SUITES: Mapping[str, Suite] = {"faithfulness": faithfulness}


def evaluate(
    folder: Path,
    data: Path | None,
    part: Literal["test", "validation"],
    suite: str | None,
    device: str,
    out: Path | None,
) -> bool:
    """Measures a checkpoint by the flags of `perceiver evaluate`, and prints what was found.

    Returns: whether the card's claims of the part hold.

    Raises:
        CheckpointError: the folder is no usable checkpoint.
        DatasetError: the data set cannot be had.
        DeviceError: the device is not there.
        UserError: there is no such suite.
    """
    checkpoint = read_checkpoint(folder)
    card = checkpoint.card
    recognizer = load_recognizer(checkpoint).to(find_device(device))
    training = find(card.input.modality).training()
    suites = {**GENERAL_SUITES, **training.suites}
    if suite is not None and suite not in suites:
        raise UserError(f"there is no suite {suite!r}: choose from {', '.join(sorted(suites))}")
    subject = Subject(checkpoint, recognizer, training.load(data))
    out = out or Path(f"runs/evaluation-{card.name}-{suite or part}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    title = f"{card.name} {card.version}"
    if suite is not None:
        report = suites[suite](subject)
        out.write_text(json.dumps(report.figures, indent=2) + "\n")
        print(f"{title}, {suite}\n\n{report.table}\n\n-> {out}")
        return True
    dataset = subject.dataset
    samples = dataset.test
    if part == "validation":
        samples = dataset.learning_parts(card.training.recipe)[1]
    logits, _ = subject.predict(samples.inputs)
    measured = score(logits, samples.labels, card.labels, card.calibration)
    out.write_text(measured.model_dump_json(indent=2) + "\n")
    print(f"{title}, {dataset.name} {part}\n\n{table(measured)}\n\n-> {out}")
    if part not in card.metrics:
        print(f"The card claims nothing of {part}.")
        return True
    broken = broken_claims(measured, card.metrics[part])
    print("\n".join(broken) if broken else "The card's claims hold.")
    return not broken
