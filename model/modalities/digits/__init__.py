"""Handwritten digits: pictures brought into MNIST's form, and numbers read digit by digit.

ink/ finds strokes in a picture, reading/ parts numbers into digits; the service needs these. What
only training and measuring need is in synthetic/ (pictures made of digits), training/ and suites.
"""

from model.modalities.digits.modality import MODALITY

__all__ = ["MODALITY"]
