"""Logits -> probabilities that mean what they say."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model.checkpoint.config import Frozen


class Calibration(Frozen):
    """How far a logit lies below the largest one, bent by a power, before the softmax.

    A sharpness of 1 is temperature scaling (Guo et al., ICML 2017). Training with label smoothing
    teaches a network to be no surer than the smoothing allows, of any image; a sharpness above 1
    gives the clear ones their due, without which a temperature can but do either them or the
    doubtful ones justice. The order of the classes stays.
    """

    temperature: float = Field(gt=0, description="what a logit's distance is divided by")
    sharpness: float = Field(1.0, gt=0, description="the power that it is raised to then")

    def log_probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logits (..., classes) -> logarithms of probabilities that sum to 1, the same shape."""
        bent = self._bent(logits)
        result: NDArray[np.float64] = bent - np.log(np.exp(bent).sum(axis=-1, keepdims=True))
        return result

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logits (..., classes) -> probabilities, the same shape."""
        weights = np.exp(self._bent(logits))
        result: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
        return result

    def _bent(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        values = logits.astype(np.float64)
        distances = (values.max(axis=-1, keepdims=True) - values) / self.temperature
        bent: NDArray[np.float64] = -(distances**self.sharpness)
        return bent
