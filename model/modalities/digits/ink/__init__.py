"""Which pixels of a grey picture are ink.

ground tells what the page is, components which pixels hang together, strokes which are the digit.
"""
