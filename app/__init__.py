"""The service: reads handwritten digits over HTTP with a trained Perceiver.

Data flows one way: bytes -> images -> model.modalities.digits.form -> batcher -> engine -> Prediction -> JSON.
Importing this package imports no torch.
"""
