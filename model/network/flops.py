"""Cost of a Perceiver: `python -m model.network.flops weights/perceiver-mnist`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.checkpoint.folder import CheckpointError, read_checkpoint
from model.network.perceiver import Perceiver
from model.network.recognizer import load_perceiver


def count_flops(perceiver: Perceiver) -> int:
    """Floating-point operations for one input: two for each multiply-add of products, convolutions.

    Of the folded form, as it runs; what is the same for every input and an export folds to
    constants (the first queries) is counted in. Norms, softmax and activations are not.
    """
    inputs = torch.zeros(
        1, perceiver.num_channels, *perceiver.input_shape, device=perceiver.latents.device
    )
    weights = {name: weight.detach() for name, weight in perceiver.state_dict().items()}
    with FlopCounterMode(display=False) as counter:
        torch.func.functional_call(perceiver, weights, (inputs,))
    return int(counter.get_total_flops())


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, or 2 where there is no checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m model.network.flops", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    try:
        checkpoint = read_checkpoint(parser.parse_args(argv).checkpoint)
        perceiver = load_perceiver(checkpoint)
    except CheckpointError as error:
        print(f"model.network.flops: {error}", file=sys.stderr)
        return 2
    print(
        f"{checkpoint.card.name} {checkpoint.card.version}: {count_flops(perceiver) / 1e6:.1f} "
        f"MFLOP per image, {checkpoint.card.parameters:,} parameters"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
