"""Whether the maps of an explanation tell what the answer rests on.

Ink, which is all that is not 0, is deleted in the order of a map, and the answer's probability
watched (Samek et al., IEEE TNNLS 28, 2017): the faster it falls, the more faithful the map.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint.attribution import occlusion, spread
from model.evaluation import plots
from model.evaluation.suite import Report, Subject
from model.network.recognizer import InputExplainer, plain_classifier

Inputs = NDArray[Any]  # (N, C, *shape)
Maps = NDArray[np.float32]  # (N, *shape)
Probabilities = Callable[[Inputs], NDArray[np.float64]]  # inputs -> (N, classes)

SEED = 0
EXPLAINED = 500  # samples
EXPLAINED_AT_ONCE = 100
STEPS = 20
SHOWN = (0.1, 0.2, 0.3, 0.5)  # shares of the ink, in the table


def faithfulness(subject: Subject) -> Report:
    """How fast an answer's probability falls as the ink that a map ranks highest is deleted.

    The curves are drawn in runs/faithfulness-NAME.png.
    """
    inputs = subject.dataset.test.inputs[:EXPLAINED]
    explainer = InputExplainer(plain_classifier(subject.recognizer))
    device = next(explainer.parameters()).device
    with torch.inference_mode():
        attention = np.concatenate(
            [
                explainer(part.to(device))[1].cpu().numpy()
                for part in torch.tensor(inputs).split(EXPLAINED_AT_ONCE)
            ]
        )

    def probabilities(inputs: Inputs) -> NDArray[np.float64]:
        return subject.card.calibration.probabilities(subject.predict(inputs)[0])

    curves = measure(inputs, attention, probabilities, SEED)
    out = Path(f"runs/faithfulness-{subject.card.name}.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(plots.deletion_curves(curves))
    lines = [f"{'ink deleted first':<18}{'area':>8}" + "".join(f"{x:>8.0%}" for x in SHOWN)]
    for name, curve in curves.items():
        steps = "".join(f"{curve[round(x * STEPS)]:>8.3f}" for x in SHOWN)
        lines.append(f"{name:<18}{area(curve):>8.3f}{steps}")
    lines.append(
        f"\n{len(inputs)} test samples; area under the answer's probability, and that -> {out}"
    )
    figures = {
        name: {"area": area(curve), "curve": curve.tolist()} for name, curve in curves.items()
    }
    return Report("\n".join(lines), figures | {"n": len(inputs)})


def deletion_curve(
    inputs: Inputs, maps: Maps, answers: NDArray[np.int64], probabilities: Probabilities
) -> NDArray[np.float64]:
    """Mean probability of the answers after each twentieth of the ink is gone: (STEPS + 1,).

    A map's highest ink goes first.
    """
    flat = inputs.reshape(*inputs.shape[:2], -1)
    inked = (flat != 0).any(axis=1)
    ranks = np.where(inked, maps.reshape(inked.shape), -np.inf).argsort(axis=1)[:, ::-1]
    ink = inked.sum(axis=1)
    curve = []
    for step in range(STEPS + 1):
        rest = flat.copy()
        for sample, order, count in zip(rest, ranks, ink, strict=True):
            sample[:, order[: round(count * step / STEPS)]] = 0
        found = probabilities(rest.reshape(inputs.shape))
        curve.append(float(found[np.arange(len(answers)), answers].mean()))
    return np.array(curve)


def area(curve: NDArray[np.float64]) -> float:
    """Under a deletion curve, in [0, 1]: the smaller, the more faithful."""
    return float(np.trapezoid(curve, dx=1 / STEPS))


def measure(
    inputs: Inputs, attention: NDArray[np.float32], probabilities: Probabilities, seed: int
) -> Mapping[str, NDArray[np.float64]]:
    """The deletion curve of each map, of ink at random and of the brightest ink.

    The model's attention to the inputs is (N, depth, heads, L, *grid).
    """
    shape = inputs.shape[2:]
    answers: NDArray[np.int64] = probabilities(inputs).argmax(axis=1)

    def log_probabilities(variants: Inputs) -> NDArray[np.float64]:
        logarithms: NDArray[np.float64] = np.log(probabilities(variants).clip(1e-12))
        return logarithms

    noise = np.random.default_rng(seed).random((len(inputs), *shape)).astype(np.float32)
    maps = {
        "random ink": noise,
        "brightest ink": inputs.max(axis=1) + noise,
        "attention": spread(attention.mean(axis=(1, 2, 3)), shape),
        "attribution": np.stack(
            [
                occlusion(sample, int(answer), log_probabilities)
                for sample, answer in zip(inputs, answers, strict=True)
            ]
        ),
    }
    return {
        name: deletion_curve(inputs, values, answers, probabilities)
        for name, values in maps.items()
    }
