"""A plain convolutional network, trained the usual way, as the measure of the corruption suite.

`python -m bench.plain_cnn` trains it and prints both it and the shipped checkpoint.
"""
