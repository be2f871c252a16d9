"""Offline room: the Perceiver, its data, training, evaluation, checkpoints and export.

Importing this package, `model.checkpoint.config`, `model.modalities.digits.form` or `model.checkpoint` imports no torch:
the service on a CPU needs the checkpoint and the preprocessing, not the training.
"""

import os

# ONNX Runtime would send its makers usage data, and keep a device id on disk, unless told before
# it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
