"""Offline room: the Perceiver, its data, training, evaluation, checkpoints and export.

Importing this package, `model.config`, `model.preprocess` or `model.checkpoint` imports no torch:
the service on a CPU needs the checkpoint and the preprocessing, not the training.
"""
