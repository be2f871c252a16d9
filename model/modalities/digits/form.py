"""A picture of a digit -> the model's input: the one definition for training, evaluation, serving.

Does what MNIST's authors did (http://yann.lecun.com/exdb/mnist/): grey, light strokes on black, the
digit scaled into a 20x20 box with its aspect kept, then centred by mass in 28x28.
"""

import math
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint.card import InputSpec
from model.modalities.digits.ink.strokes import find_ink, line_width
from model.modalities.pillow import load_upright, upright

Grey = NDArray[np.uint8]  # (H, W), 0 black, 255 white
Box = tuple[int, int, int, int]  # left, top, right, bottom

# Pixels that ink is looked for at, about: larger pictures are reduced, small ones enlarged.
WORKING_PIXELS = 128 * 128
LEAST_PIXELS = 64 * 64
BAND_PIXELS = 2**20  # of a picture that are converted at a time, about
LARGEST_DIGIT = 400  # pixels of the longer side; a larger one is reduced before its lines widen
THINNEST_LINE = 1.8  # pixels of the result that a line is wide, at least
IS_COLOUR = 40  # difference of a pixel's components from which on a picture has colours
# A digit smaller than this there, or drawn with a thinner pen, is looked at closer.
FEWEST_PIXELS = 40
THINNEST_PEN = 2.2
# Rows or columns at each edge that MNIST's digits never reach, less those that damage may take.
MARGIN = 3
BOX_SHARE = 20 / 28  # the digit's box against the model's input: 20 of 28 pixels


def prepare_file(content: bytes, spec: InputSpec) -> NDArray[np.uint8]:
    """An image file -> the model's input (1, *spec.shape).

    Raises: what Pillow raises where the file is broken, which may be of any type.
    """
    return prepare(load_upright(Image.open(BytesIO(content))), spec)


def prepare(picture: Image.Image, spec: InputSpec) -> NDArray[np.uint8]:
    """Brings a picture of any size and mode into the model's form.

    A picture that is in MNIST's form already (or is its negative) passes pixel for pixel.

    Returns: (1, *spec.shape) uint8, light strokes on black; all black where the picture
    shows nothing.
    """
    picture = upright(picture)
    size = size_of(spec)
    if picture.size == size[::-1]:
        grey = _luminance(_opaque(picture, 1, (0, 0, *picture.size)))
        for candidate in (grey, 255 - grey):
            if is_centred_digit(candidate, size):
                return candidate[None]
        evened = on_black(grey)
        if evened is not None and is_about_centred(evened):
            return evened[None]
    return centre(*_ink(picture), size)[None]


def size_of(spec: InputSpec) -> tuple[int, int]:
    """Rows and columns of the input."""
    rows, columns = spec.shape
    return rows, columns


def _ink(picture: Image.Image) -> tuple[Grey, tuple[int, int, int, int]]:
    """Coverage by ink (H, W) of the picture or a part of it, and the digit's box in there."""
    grey, scale = to_grey(picture)
    ink = find_ink(grey, thumbnail=scale < 1)
    if ink is None:
        return np.zeros((1, 1), np.uint8), (0, 1, 0, 1)
    top, bottom, left, right = ink.box
    size = ink.size
    if scale > 1 and (size < FEWEST_PIXELS or ink.line < THINNEST_PEN):
        around = max(8, size // 2)
        part = (
            max(0, round((left - around) * scale)),
            max(0, round((top - around) * scale)),
            min(picture.width, round((right + around) * scale)),
            min(picture.height, round((bottom + around) * scale)),
        )
        grey, nearer = to_grey(picture, 2 * WORKING_PIXELS, part)
        closer = find_ink(grey)
        # The same digit, not something beside it.
        if closer is not None and 0.6 < closer.size * nearer / (size * scale) < 1.7:
            ink = closer
    return ink.coverage, ink.box


def to_grey(
    picture: Image.Image, most: int = WORKING_PIXELS, part: Box | None = None
) -> tuple[Grey, float]:
    """Grey of a picture in any mode, of so many pixels at most; its pixels per pixel of that.

    Of a part of the picture where that is given: left, top, right, bottom.
    """
    part = part or (0, 0, *picture.size)
    width, height = part[2] - part[0], part[3] - part[1]
    area = width * height
    # A picture of a few rows is not reduced in both directions.
    factor = math.ceil(max(math.sqrt(area / most), max(width, height) / most))
    grey = _luminance(_opaque(picture, factor, part))
    enlarge = math.ceil(math.sqrt(LEAST_PIXELS / area))
    if enlarge > 1:
        size = (grey.shape[1] * enlarge, grey.shape[0] * enlarge)
        enlarged = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(enlarged), 1 / enlarge
    return grey, factor


def _opaque(picture: Image.Image, factor: int, part: Box) -> Image.Image:
    """Mode L or RGB of a part of a picture in any mode, reduced.

    Transparency is laid on white, or on black where the visible pixels are light.
    """
    transparent = picture.has_transparency_data
    if factor == 1:
        whole = part == (0, 0, *picture.size)
        picture = _reducible(picture if whole else picture.crop(part))
    elif _reducible(first := picture.crop((0, 0, 1, 1))) is first:
        picture = picture.reduce(factor, part)
    else:
        picture = _reduced_in_bands(picture, factor, part)
    if transparent:
        return _on_opaque_ground(picture.convert("RGBA"))
    if picture.mode in ("I", "F"):
        return _to_8_bit(picture)
    return picture


def _reducible(picture: Image.Image) -> Image.Image:
    """A picture in a mode whose pixels have a mean."""
    if picture.has_transparency_data:
        # Premultiplied, so that what is invisible has no say in the mean of a reduced pixel.
        return picture.convert("RGBA").convert("RGBa")
    if picture.mode.startswith("I;"):
        return picture.convert("I")
    if picture.mode == "LAB":
        return picture.getchannel("L")
    if picture.mode not in ("L", "RGB", "I", "F"):
        return picture.convert("L" if picture.mode == "1" else "RGB")
    return picture


def _reduced_in_bands(picture: Image.Image, factor: int, part: Box) -> Image.Image:
    """The part, reducible and reduced; a large picture is never converted whole."""
    left, top, right, bottom = part
    length = factor * max(1, BAND_PIXELS // (factor * min(right - left, bottom - top)))
    result: Image.Image | None = None
    for start in range(0, max(right - left, bottom - top), length):
        if bottom - top > right - left:
            band = left, top + start, right, min(top + start + length, bottom)
        else:
            band = left + start, top, min(left + start + length, right), bottom
        reduced = _reducible(picture.crop(band)).reduce(factor)
        if result is None:
            size = -(-(right - left) // factor), -(-(bottom - top) // factor)
            result = Image.new(reduced.mode, size)
        result.paste(reduced, ((band[0] - left) // factor, (band[1] - top) // factor))
    assert result is not None
    return result


def _luminance(picture: Image.Image) -> Grey:
    """Grey of mode L or RGB; of colours, along the line through them on which they differ most."""
    if picture.mode == "L":
        return np.asarray(picture)
    tints = np.diff(np.asarray(picture.reduce(2)).astype(np.int16), axis=2)
    if max(int(tints.max()), -int(tints.min())) < IS_COLOUR:
        return np.asarray(picture.convert("L"))
    pixels = np.asarray(picture).astype(np.float32)
    spread = np.zeros((3, 3), np.float32)
    for steps in (pixels[1::2] - pixels[:-1:2], pixels[:, 1::2] - pixels[:, :-1:2]):
        steps = steps.reshape(-1, 3)
        spread += steps.T @ steps
    direction = np.linalg.eigh(spread)[1][:, 2]
    # As much of luminance as there is in it comes out with luminance' sign.
    direction = direction * (np.sign(direction.sum()) or 1.0) / np.abs(direction).sum()
    matrix = (*direction.tolist(), -255 * float(direction.clip(max=0).sum()))
    return np.asarray(picture.convert("L", matrix))


def is_centred_digit(grey: Grey, size: tuple[int, int]) -> bool:
    """Whether a picture is as MNIST's are: size, black ground, box and centre of mass."""
    if grey.shape != size or np.count_nonzero(grey) * 2 > grey.size or grey.max() < 128:
        return False
    box = round(max(size) * BOX_SHARE)
    pixels = grey.astype(np.float64)
    for turned, length in ((pixels, size[0]), (pixels.T, size[1])):
        mass = turned @ np.ones(turned.shape[1])  # of each row, then of each column
        inked = np.flatnonzero(mass)
        middle = float(mass @ np.arange(length)) / float(mass.sum()) + 0.5
        # The authors' rounding left the centre up to a pixel from the middle.
        if inked[-1] + 1 - inked[0] > box or abs(middle - length / 2) > 1:
            return False
    return True


def on_black(grey: Grey) -> Grey | None:
    """A picture on its ground where the margins tell it column by column or row by row, as black.

    Other than black, the ground may be of any shade and in stripes.
    """
    for turned in (grey, grey.T):
        edges = turned[:MARGIN].astype(np.int16), turned[-MARGIN:].astype(np.int16)
        first, last = (np.median(edge, axis=0) for edge in edges)
        sure = np.flatnonzero(np.abs(first - last) < 32)
        if not len(sure):
            continue
        # Where a stroke reaches the margin, the ground is as it is beside.
        nearest = np.abs(np.arange(len(first))[:, None] - sure).argmin(axis=1)
        ground = first[sure][nearest].astype(np.int16)
        ground[ground < 32] = 0
        usual = np.abs(np.concatenate(edges) - ground) < (8 if ground.any() else 32)
        if usual.mean() < (0.85 if ground.any() else 0.6):
            continue
        contrast = np.abs(turned - ground)
        if ground.any():
            contrast = contrast * 255 // max(1, contrast.max())
        evened: Grey = contrast.astype(np.uint8)
        return evened if turned is grey else evened.T
    return None


def is_about_centred(grey: Grey) -> bool:
    """Whether a damaged picture still has its digit where MNIST's have it, and as large."""
    wide = np.pad(grey, 1)
    height, width = grey.shape
    around = [wide[r : r + height, c : c + width] for r in range(3) for c in range(3)]
    smooth = np.sort(np.stack(around), axis=0)[4] > 96
    for axis in (0, 1):
        reached = np.flatnonzero(smooth.any(axis=axis))
        if len(reached) and reached[0] < 2 and reached[-1] >= smooth.shape[1 - axis] - 2:
            return False  # it has no margins
    ink = grey > 96
    if not ink.any():
        return False
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    share = max((rows[-1] + 1 - rows[0]) / height, (columns[-1] + 1 - columns[0]) / width)
    away = max(
        abs(m + 0.5 - n / 2) / n for m, n in zip(_centre_of_mass(grey), grey.shape, strict=True)
    )
    # Off the middle within its box: another place. Beyond the box: marks beside it.
    return bool(share > 0.45 and away < (0.09 if share <= BOX_SHARE + 0.04 else 0.18))


def centre(coverage: Grey, extent: tuple[int, int, int, int], size: tuple[int, int]) -> Grey:
    """Scales the strokes' bounding box into the central box and centres them by mass."""
    result = np.zeros(size, dtype=np.uint8)
    if not coverage.any():
        return result
    top, bottom, left, right = extent
    coverage = coverage[top:bottom, left:right]
    shrink = math.ceil(max(coverage.shape) / LARGEST_DIGIT)
    if shrink > 1:
        coverage = np.asarray(Image.fromarray(coverage).reduce(shrink))
    scale = min(n * BOX_SHARE / m for n, m in zip(size, coverage.shape, strict=True))
    box = Image.fromarray(_widened(coverage, scale))
    target = max(1, round(box.width * scale)), max(1, round(box.height * scale))
    digit = np.array(
        box.resize(target, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    )
    digit = (digit.astype(np.float32) * (255 / max(1, digit.max()))).round().astype(np.uint8)
    offsets = [
        min(max(0, round(length / 2 - (found + 0.5))), length - extent)
        for length, extent, found in zip(size, digit.shape, _centre_of_mass(digit), strict=True)
    ]
    rows, columns = (slice(at, at + n) for at, n in zip(offsets, digit.shape, strict=True))
    result[rows, columns] = digit
    return result


def _widened(coverage: Grey, scale: float) -> Grey:
    """Thin lines made as wide as MNIST's thin ones; `scale`: pixels of the result per pixel."""
    missing = round((THINNEST_LINE / scale - line_width(coverage)) / 2)
    if missing < 1:
        return coverage
    wide = np.pad(coverage, missing)
    for step in range(missing):
        rows = np.maximum(np.maximum(wide[:-2], wide[1:-1]), wide[2:])
        middle = rows[:, 1:-1]
        if step % 2:  # square and cross in turn make an octagon
            wide = np.maximum(np.maximum(rows[:, :-2], middle), rows[:, 2:])
        else:
            wide = np.maximum(np.maximum(wide[1:-1, :-2], middle), wide[1:-1, 2:])
    return wide


def _on_opaque_ground(picture: Image.Image) -> Image.Image:
    pixels = np.asarray(picture, dtype=np.float32)
    alpha = pixels[..., 3]
    luminance = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    visible_is_light = (luminance * alpha).sum() > 127.5 * alpha.sum()
    # An opaque picture has no ground to choose: either gives the same.
    ground = (0, 0, 0, 255) if visible_is_light else (255, 255, 255, 255)
    return Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture).convert("RGB")


def _to_8_bit(picture: Image.Image) -> Image.Image:
    """Integers by the least depth of 8, 12 or 16 bits that holds them; others by their range."""
    values = np.asarray(picture).astype(np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    bits = next((n for n in (8, 12, 16) if values.max() < 2**n), None)
    if picture.mode == "I" and values.min() >= 0 and bits:
        scaled = values * (255 / (2**bits - 1))
    else:
        span = float(np.ptp(values)) or 1.0
        scaled = (values - values.min()) * (255 / span)
    return Image.fromarray(scaled.round().astype(np.uint8))


def _centre_of_mass(grey: Grey) -> tuple[float, float]:
    """Row and column, as pixel indices."""
    rows, columns = (grey.sum(axis=axis, dtype=np.float64) for axis in (1, 0))
    mass = float(rows.sum())
    row, column = (float(line @ np.arange(len(line))) / mass for line in (rows, columns))
    return row, column
