"""Broken inputs by number: the same each time, on each machine.

A file for each kind of input; what they share is in `blind`, which knows no format.
"""
