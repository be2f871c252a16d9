"""Made pictures: numbers in a row, users' photographs and scans, MNIST-C, what shows no digit.

Training and suites draw them from a seed. Only offline commands import this.
"""
