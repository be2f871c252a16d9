"""The flagship behind the servers that a user would pick instead, each as its documentation shows.

They run in environments of their own, which bench/peers.py lists, from the repository's root.
"""
