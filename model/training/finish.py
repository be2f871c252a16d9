"""Trained weights -> a checkpoint: calibrate, fit the novelty head, score, export, draw."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint.card import Card, DatasetInfo, InputSpec, NoveltyFigures, TrainingRecord
from model.checkpoint.config import PerceiverConfig
from model.checkpoint.folder import PARTS_FOLDER, read_checkpoint, read_files, write_checkpoint
from model.data.labelled import Dataset
from model.errors import UserError
from model.evaluation import plots
from model.evaluation.predictions import predict, summarise
from model.evaluation.scores import calibration_bins, score
from model.evaluation.suite import Subject
from model.modalities import find
from model.network.device import find_device
from model.network.perceiver import Perceiver
from model.network.recognizer import InputClassifier, Recognizer, load_perceiver, load_recognizer
from model.training.calibrate import fit_calibration
from model.training.export import exported_files
from model.training.novelty import fit_novelty


@dataclass(frozen=True)
class Trained:
    """A trained network, and what its card tells of it."""

    perceiver: Perceiver  # on the CPU
    config: PerceiverConfig  # its arguments
    spec: InputSpec  # its input
    record: TrainingRecord  # how its weights came about
    name: str  # of the checkpoint
    version: str  # of the checkpoint


def finish(trained: Trained, dataset: Dataset) -> tuple[Card, dict[str, bytes]]:
    """Makes everything of a checkpoint but the run's history.

    Returns: the card, and the files by relative path.

    Raises:
        ExportError: the exported graphs compute something else.
    """
    spec, recipe = trained.spec, trained.record.recipe
    train, validation = dataset.learning_parts(recipe)
    modality = find(spec.modality)
    training = modality.training()
    options = modality.flags().options.model_validate(trained.record.options)
    classifier = InputClassifier(trained.perceiver, spec).eval()
    novelty = fit_novelty(
        lambda inputs: summarise(classifier, inputs),
        training.unlike(train, spec, options, recipe.seed),
        validation.inputs,
        lambda batch, generator: training.augment(batch, options, generator),
        recipe.seed,
    )
    recognizer = Recognizer(classifier, novelty).eval()
    (logits, novelties), (test_logits, test_novelties) = (
        predict(recognizer, part.inputs) for part in (validation, dataset.test)
    )
    calibration = fit_calibration(logits, validation.labels)
    card = Card(
        name=trained.name,
        version=trained.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        parameters=sum(p.numel() for p in recognizer.parameters()),
        model=trained.config,
        labels=dataset.class_names,
        inputs=(spec,),
        calibration=calibration,
        metrics={
            "validation": score(logits, validation.labels, dataset.class_names, calibration),
            "test": score(test_logits, dataset.test.labels, dataset.class_names, calibration),
        },
        novelty=NoveltyFigures(
            validation_false_alarms=float((novelties > 0.5).mean()),
            test_false_alarms=float((test_novelties > 0.5).mean()),
        ),
        dataset=DatasetInfo(
            name=dataset.name,
            sha256=dataset.digest,
            train=len(train),
            validation=len(validation),
            test=len(dataset.test),
        ),
        training=trained.record,
    )
    return card, {
        **exported_files(recognizer),
        **_drawn(classifier, validation.inputs[0], dataset, calibration.probabilities(test_logits)),
    }


def _drawn(
    classifier: InputClassifier,
    example: NDArray[Any],
    dataset: Dataset,
    probabilities: NDArray[np.float64],
) -> dict[str, bytes]:
    """Plots of the test set's probabilities (N, classes), and of where the model looks."""
    spec, test, class_names = classifier.spec, dataset.test, dataset.class_names
    modality = find(spec.modality)

    def picture(sample: NDArray[Any]) -> NDArray[np.uint8]:
        return np.asarray(modality.picture(sample, spec))

    predicted = probabilities.argmax(axis=1)
    with torch.inference_mode():
        values = torch.tensor(example)[None]
        _, attention = classifier.perceiver.forward_with_attention(classifier.normalise(values))
    drawn = {
        "plots/confusion.png": plots.confusion_matrix(test.labels, predicted, class_names),
        "plots/misread.png": plots.misread_samples(test, probabilities, class_names, picture),
        "plots/reliability.png": plots.reliability_diagram(
            *calibration_bins(probabilities.max(axis=1), predicted == test.labels)
        ),
    }
    if len(spec.shape) == 2:
        drawn["plots/attention.png"] = plots.attention_maps(picture(example), attention[0].numpy())
    return drawn


def refinish(folder: Path, data: Path | None, version: str) -> Card:
    """Finishes a checkpoint anew, in place, as after a change of how its inputs are prepared.

    Weights and the run's history stay.

    Raises:
        CheckpointError: the folder is no usable checkpoint.
        DatasetError: the data set cannot be had.
        ExportError: see `finish`.
    """
    checkpoint = read_checkpoint(folder)
    former = checkpoint.card
    trained = Trained(
        perceiver=load_perceiver(checkpoint),
        config=former.model,
        spec=former.input,
        record=former.training,
        name=former.name,
        version=version,
    )
    dataset = find(former.input.modality).training().load(data)
    card, files = finish(trained, dataset)
    return write_checkpoint(folder, card, read_files(checkpoint) | files)


def fit_parts(folder: Path, data: Path | None, seed: int, device: str) -> Card:
    """Learns to find the parts of a sample, as a checkpoint reads them, and keeps that in there.

    Raises:
        CheckpointError: the folder is no usable checkpoint.
        DatasetError: the data set cannot be had.
        DeviceError: the device is not there.
        UserError: the modality has no parts.
    """
    checkpoint = read_checkpoint(folder)
    modality = checkpoint.card.input.modality
    training = find(modality).training()
    if training.fit_parts is None:
        raise UserError(f"a sample of the modality {modality} has no parts")
    recognizer = load_recognizer(checkpoint).to(find_device(device))
    subject = Subject(checkpoint, recognizer, training.load(data))
    parts = {
        f"{PARTS_FOLDER}{name}": content
        for name, content in training.fit_parts(subject, seed).items()
    }
    return write_checkpoint(folder, checkpoint.card, read_files(checkpoint) | parts)
