"""Tries broken inputs by the million: files, inference bodies, streams of HTTP requests.

`python -m bench.fuzz`. A file here for each kind of input; `trials` has what they share.
"""
