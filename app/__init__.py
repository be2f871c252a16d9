"""The service: answers over HTTP with a trained Perceiver, whatever its modality.

A request goes one way: bytes -> gate -> decode -> prepare -> batch -> compute -> answer. Importing
this package imports no PyTorch.
"""

import os

# NumPy's products here are small; threads of their own, which wait in a loop for each other, made
# reading a number on two busy cores take five times the CPU. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
