"""From labelled samples to a checkpoint: runs, recipe, calibration, novelty, export.

Knows no modality by name. Only offline commands import this.
"""
