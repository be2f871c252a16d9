"""The service: reads handwritten digits over HTTP with a trained Perceiver.

Data flows one way: bytes -> gate -> decode -> prepare -> batcher -> engine -> calibration -> JSON.
Importing this package imports no torch.
"""
