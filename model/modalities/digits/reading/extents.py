"""Tells for each pixel of ink in a line where its digit begins and ends, and which digit it is.

A small U-Net (Ronneberger et al., MICCAI 2015), for digits that touch are parted by what they look
like, not by where ink is thin. In NumPy, so that the service needs nothing more; the module
`training.extents` of this modality trains it.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.modalities.digits.reading.learned import EXTENTS_FILE, Learned

Grey = NDArray[np.uint8]  # (H, W)
Maps = NDArray[np.float32]  # (channels, H, W)

DIGIT = 24  # rows that a digit is high in the network's scale
STEP = 8  # rows and columns come in multiples of this
MARGIN = 4


class ExtentNetwork(Learned):
    """A U-Net for lines of digits; its arrays are named by layer and part."""

    file = EXTENTS_FILE

    def look(self, coverage: Grey, height: float) -> tuple[Maps, Maps]:
        """What each pixel's surroundings tell of its digit; without meaning off the ink.

        Args:
            coverage: by ink (H, W), of a line.
            height: of its digits, rows.

        Returns: the digit's first and last column (2, H, W), and ln P of its class (10, H, W).
        """
        small = scaled(coverage, height)
        reaches, names = self._computed(small)
        rows, columns = (
            ((np.arange(n) + 0.5) * (m / n)).astype(np.int64)
            for n, m in zip(coverage.shape, small.shape, strict=True)
        )
        places = rows[:, None], columns
        ends: Maps = reaches[:, *places] * np.float32(height)
        ends += np.arange(coverage.shape[1], dtype=np.float32) + np.float32(0.5)
        return ends, names[:, *places]

    def _computed(self, coverage: Grey) -> tuple[Maps, Maps]:
        """How many heights from each pixel its digit begins and ends, and ln P of its class."""
        height, width = coverage.shape
        padding = [(MARGIN, MARGIN + -(size + 2 * MARGIN) % STEP) for size in coverage.shape]
        ink: Maps = np.pad(coverage, padding).astype(np.float32) / np.float32(255)
        rows, columns = ink.shape
        quads = ink.reshape(rows // 2, 2, columns // 2, 2).transpose(1, 3, 0, 2)
        fine: Maps = quads.reshape(4, rows // 2, columns // 2)
        fine = self._convolved("fine_1", self._convolved("fine_0", fine))
        middle = self._convolved("middle_1", self._convolved("middle_0", _pooled(fine)))
        coarse = _pooled(middle)
        for layer in ("coarse_0", "coarse_1", "coarse_2"):
            coarse = self._convolved(layer, coarse)
        middle = self._convolved("middle_2", middle + _doubled(self._mixed("to_middle", coarse)))
        fine = self._convolved("fine_2", fine + _doubled(self._mixed("to_fine", middle)))
        reaches = self._mixed("reaches", fine).reshape(2, 2, 2, rows // 2, columns // 2)
        whole: Maps = reaches.transpose(0, 3, 1, 4, 2).reshape(2, rows, columns)
        scores = self._mixed("names", fine)
        scores -= scores.max(axis=0)
        scores -= np.log(np.exp(scores).sum(axis=0))
        own = (slice(None), slice(MARGIN, MARGIN + height), slice(MARGIN, MARGIN + width))
        return whole[own], _doubled(scores)[own]

    def _convolved(self, layer: str, maps: Maps) -> Maps:
        """3x3 convolution, then ReLU."""
        channels, rows, columns = maps.shape
        wide = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
        patches = np.empty((channels, 3, 3, rows, columns), np.float32)
        for down in range(3):
            for right in range(3):
                patches[:, down, right] = wide[:, down : down + rows, right : right + columns]
        result: Maps = self._arrays[f"{layer}.weight"] @ patches.reshape(
            channels * 9, rows * columns
        )
        result += self._arrays[f"{layer}.bias"][:, None]
        np.maximum(result, 0, out=result)
        return result.reshape(-1, rows, columns)

    def _mixed(self, layer: str, maps: Maps) -> Maps:
        """1x1 convolution."""
        channels, rows, columns = maps.shape
        result: Maps = self._arrays[f"{layer}.weight"] @ maps.reshape(channels, rows * columns)
        result += self._arrays[f"{layer}.bias"][:, None]
        return result.reshape(-1, rows, columns)


def scaled(coverage: Grey, height: float) -> Grey:
    """A line with digits so high, in the network's scale."""
    scale = DIGIT / height
    rows, columns = (max(1, round(n * scale)) for n in coverage.shape)
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(coverage).resize((columns, rows), how))


def _pooled(maps: Maps) -> Maps:
    """The largest of each four neighbours."""
    rows = np.maximum(maps[:, ::2], maps[:, 1::2])
    return np.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _doubled(maps: Maps) -> Maps:
    """Each value in the place of four."""
    return maps.repeat(2, axis=1).repeat(2, axis=2)
