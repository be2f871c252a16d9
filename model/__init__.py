"""The offline room: the Perceiver, its data, training, evaluation and checkpoints.

The service imports `model.checkpoint` and what `model.modalities` needs to serve; both are free of
PyTorch. `python -m model` is the command line.
"""

import os

# ONNX Runtime would send its makers usage data, and keep a device id on disk, unless told before
# it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
