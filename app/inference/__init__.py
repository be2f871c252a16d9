"""Classifying, without HTTP: a file is decoded, prepared, batched and computed, one way through.

models holds what is served, predictor and reader answer, explainer tells why, batcher and engines
compute.
"""
