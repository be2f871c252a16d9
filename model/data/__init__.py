"""Labelled samples: data sets, their parts, MNIST's files, and random warps of a batch."""
