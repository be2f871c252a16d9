"""Which hardware PyTorch computes on."""

import contextlib
import os
import platform
import re
from pathlib import Path

import torch

from model.errors import UserError


class DeviceError(UserError):
    """The device asked for is not there; the message says so."""


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:N; auto is CUDA where there is one.

    Args:
        name: as the user gave it.
        local_rank: of the process among those of this machine; picks its GPU where N is not given.

    Raises:
        DeviceError: the name is none of these, or there is no such device here.
    """
    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeviceError(f"device {name!r} is none of auto, cpu, cuda, cuda:N")
    device = torch.device(f"cuda:{local_rank}" if name == "cuda" else name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"PyTorch finds no device {name} here")
    return device


def device_name(device: torch.device) -> str:
    """The hardware behind a device, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()
