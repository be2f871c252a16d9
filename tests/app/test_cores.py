"""Threads follow what a container may use, not what its host has."""

import os
from pathlib import Path

import pytest

from app.cores import usable_cores
from app.settings import Settings


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "99900000 100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "20000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_container_s_quota_counts(tmp_path: Path, files: dict[str, str], limit: int | None):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    cores = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == (cores if limit is None else min(cores, limit))


def test_workers_share_them():
    assert Settings(workers=1).threads == usable_cores()
    assert Settings(workers=256).threads == 1
