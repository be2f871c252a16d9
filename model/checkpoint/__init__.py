"""Checkpoints: folders of weights, graphs and a card, written whole and read with their digests.

card and config say what stands in card.json, folder reads and writes, calibration and attribution
work on a model's answers in NumPy. Nothing here imports PyTorch.
"""
