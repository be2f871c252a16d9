"""The service: reads handwritten digits over HTTP with a trained Perceiver.

Data flows one way: bytes -> images -> model.preprocess -> batcher -> engine -> Prediction -> JSON.
Importing this package imports no torch.
"""
