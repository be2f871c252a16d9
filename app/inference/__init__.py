"""Classifying, without HTTP: a file is decoded, prepared, batched and computed, one way through.

models holds what is served, predictor and reader answer, explainer tells why. decoders and their
processes decode within budgets, in turns; batcher and engines compute; proof tries a checkpoint.
"""
