"""Where a training process runs, and its place among the processes of the run."""

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import torch
import torch.distributed as dist

from model.errors import UserError
from model.network.device import device_name, find_device


class TrainError(UserError):
    """The run cannot start or go on; the message says why."""


@dataclass
class Runtime:
    """Where a training process runs, and its place among the processes of the run."""

    device: torch.device
    bfloat16: bool
    compile: bool
    rank: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def environment(self) -> dict[str, str]:
        """Hardware and versions, for the card."""
        return {
            "device": device_name(self.device),
            "processes": str(self.processes),
            "threads": str(torch.get_num_threads()),
            "precision": "bfloat16 autocast" if self.bfloat16 else "float32",
            "compiled": str(self.compile).lower(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(name) for name in ("numpy", "onnxruntime")},
        }


@contextlib.contextmanager
def open_runtime(name: str, precision: str, compiled: bool) -> Iterator[Runtime]:
    """Finds the device of a name; joins the other processes where torchrun started several.

    The precision `auto` is bfloat16 where that is native.

    Raises:
        DeviceError: there is no such device.
    """
    rank, local_rank, processes = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))
    )
    device = find_device(name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if precision != "auto":
        bfloat16 = precision == "bfloat16"
    if processes > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Runtime(device, bfloat16, compiled, rank, processes)
    finally:
        if processes > 1:
            dist.destroy_process_group()
