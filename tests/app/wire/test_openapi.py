"""Schemathesis tries what the OpenAPI document allows, and much that it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import serving

# Left out, for what the schema language can't say:
EXCLUDED = {
    # of the strings of bytes that a schema allows most are no picture, and are refused;
    "positive_data_acceptance",
    # in a form each value is bytes on the wire: {} sent as `files` is a file that is no picture.
    "negative_data_rejection",
}


def test_every_answer_is_as_documented(tmp_path: Path):
    """No 5xx, no status, header or body that the document lacks, nothing without its key."""
    with serving("--api-keys", "a-key") as server:
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            *(f"{server.url}/openapi.json", "--header", "X-API-Key: a-key"),
            *("--checks", "all", "--exclude-checks", ",".join(sorted(EXCLUDED))),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "5"),
            *("--generation-deterministic", "--no-color"),
        ]
        result = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
    if result.returncode:
        pytest.fail(result.stdout + result.stderr)
