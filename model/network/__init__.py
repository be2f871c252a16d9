"""The Perceiver in PyTorch; it knows arrays, not what they show.

perceiver is the network of the paper, folded the same function as engines run it, recognizer what a
checkpoint's weights make: network, normalisation and novelty head. flops and device serve both.
"""
