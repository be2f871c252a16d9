"""Fits a calibration to logits whose classes are known."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize

from model.checkpoint.calibration import Calibration
from model.evaluation.scores import Logits, negative_log_likelihood


def fit_calibration(logits: Logits, labels: NDArray[np.int64]) -> Calibration:
    """The calibration of least negative log-likelihood; temperature and sharpness in [0.05, 20]."""

    def at(logarithms: NDArray[np.float64]) -> Calibration:
        temperature, sharpness = np.exp(logarithms)
        return Calibration(temperature=temperature, sharpness=sharpness)

    def nll(logarithms: NDArray[np.float64]) -> float:
        return negative_log_likelihood(at(logarithms), logits, labels)

    limit = float(np.log(20))
    bounds = Bounds([-limit] * 2, [limit] * 2)
    return at(minimize(nll, x0=np.zeros(2), method="Nelder-Mead", bounds=bounds).x)
