"""Figures of a model on a data set: scores, suites beyond the test set, plots.

Suites themselves belong to modalities. Only offline commands import this.
"""
