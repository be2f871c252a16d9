"""Accuracy against FLOPs: `python -m bench.frontier --data FOLDER`.

Trains Perceivers of growing cost with one recipe, each for the same few epochs, and draws
validation accuracy against cost. Rows stay in bench/results/frontier.json and are not trained
again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from bench.tools.machine import RESULTS
from model.checkpoint.config import PerceiverConfig, TrainConfig
from model.modalities.digits.options import DigitOptions
from model.modalities.digits.training import TRAINING
from model.network.flops import count_flops
from model.training.options import can_compile
from model.training.runtime import open_runtime
from model.training.trainer import Plan, Trainer

ROWS = RESULTS / "frontier.json"
PLOT = RESULTS / "frontier.png"

_PIXELS: dict[str, Any] = {"fourier_bands": 8, "self_per_cross_atn": 1, "mlp_ratio": 2}
_CONVOLUTION: dict[str, Any] = {
    **_PIXELS,
    "input_adapter": "convolution",
    "fourier_bands": 6,
    "depth": 2,
    "num_latents": 8,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "pixels, width 64, depth 1": {**_PIXELS, "depth": 1, "cross_heads": 8},
    "pixels, width 64, depth 3": {**_PIXELS, "depth": 3, "cross_heads": 8},
    "pixels, width 128, depth 3": {**_PIXELS, "depth": 3, "latent_dim": 128, "cross_heads": 8},
    "convolution 16, width 64": {**_CONVOLUTION, "adapter_channels": 16, "cross_heads": 8},
    "convolution 32, width 96": {
        **_CONVOLUTION,
        "adapter_channels": 32,
        "latent_dim": 96,
        "cross_heads": 12,
    },
    "convolution 48, width 128": {
        **_CONVOLUTION,
        "adapter_channels": 48,
        "latent_dim": 128,
        "cross_heads": 16,
    },
    "convolution 64, width 192": {
        **_CONVOLUTION,
        "adapter_channels": 64,
        "latent_dim": 192,
        "cross_heads": 16,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST's IDX files; else downloaded")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else []
    mnist = TRAINING.load(arguments.data)
    recipe = TrainConfig(epochs=arguments.epochs, learning_rate=2e-3, ema_decay=0.99)
    kept, validation = mnist.learning_parts(recipe)
    options = DigitOptions()
    with open_runtime("auto", "auto", can_compile()) as runtime:
        for name, configuration in CONFIGURATIONS.items():
            if any(row["name"] == name and row["epochs"] == recipe.epochs for row in rows):
                continue
            config = PerceiverConfig(**configuration)
            plan = Plan(config, mnist.spec, mnist.class_names, recipe, options, TRAINING.augment)
            trainer = Trainer(plan, kept, validation, runtime)
            while len(trainer.history) < recipe.epochs:
                last = trainer.run_epoch(progress=True)
            rows.append(
                {
                    "name": name,
                    "epochs": recipe.epochs,
                    "input_adapter": config.input_adapter,
                    "mflop": round(count_flops(trainer.averaged) / 1e6, 1),
                    "parameters": sum(p.numel() for p in trainer.parameters),
                    "validation_accuracy": last.validation_accuracy,
                    "validation_loss": round(last.validation_loss, 4),
                    "seconds_per_epoch": round(last.seconds),
                }
            )
            print(rows[-1], flush=True)
            ROWS.write_text(json.dumps(rows, indent=2) + "\n")
            torch.compiler.reset()
    draw(rows)


def draw(rows: list[dict[str, Any]]) -> None:
    """The plot; a line for each kind of byte array."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind in ("pixels", "convolution"):
        points = sorted(
            (row["mflop"], 100 * row["validation_accuracy"], row["name"])
            for row in rows
            if row["input_adapter"] == kind
        )
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o-", label=kind)
        for x, y, name in points:
            axes.annotate(name.split(", ", 1)[1], (x, y), (4, -10), textcoords="offset points")
    axes.set(xlabel="MFLOP per image", ylabel="validation accuracy, %", xscale="log")
    axes.set_title(f"After {rows[0]['epochs']} epochs, one seed")
    axes.grid(alpha=0.3)
    axes.legend(title="byte array")
    figure.savefig(PLOT, dpi=90)


if __name__ == "__main__":
    main()
