"""What a Perceiver costs."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.network.perceiver import Perceiver


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
