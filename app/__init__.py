"""The service: answers over HTTP with a trained Perceiver, whatever its modality.

A request goes one way: bytes -> gate -> decode -> prepare -> batch -> compute -> answer. Importing
this package imports no PyTorch.
"""
