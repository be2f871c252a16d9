"""A picture of a digit -> the model's input: the one definition for training, evaluation, serving.

Does what MNIST's authors did (http://yann.lecun.com/exdb/mnist/): grey, light strokes on black, the
digit scaled into a 20x20 box with its aspect kept, then centred by mass in 28x28.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model.config import Preprocessing

Grey = NDArray[np.uint8]  # (H, W), 0 black, 255 white

# Longest side that the strokes are looked for at; a larger picture is reduced first.
WORKING_SIZE = 256
# The digit's box against the model's input: 20 of 28 pixels.
BOX_SHARE = 20 / 28


def prepare(picture: Image.Image, spec: Preprocessing) -> NDArray[np.uint8]:
    """Brings a picture of any size and mode into the model's form.

    A picture that is in MNIST's form already (or is its negative) passes pixel for pixel.

    Returns: (1, spec.height, spec.width) uint8, light strokes on black; all black where the picture
    shows nothing.
    """
    grey = to_grey(picture)
    size = (spec.height, spec.width)
    for candidate in (grey, 255 - grey):
        if is_centred_digit(candidate, size):
            return candidate[None]
    return centre(isolate_strokes(grey), size)[None]


def load_upright(picture: Image.Image) -> Image.Image:
    """Decodes an opened picture and turns it upright, as its EXIF data asks.

    A large JPEG is decoded at reduced size, no smaller than twice `WORKING_SIZE`.

    Raises: what Pillow raises where the file is broken, which may be of any type.
    """
    shrink = max(picture.size) // (2 * WORKING_SIZE)
    if shrink > 1:
        picture.draft(None, (picture.width // shrink, picture.height // shrink))
    picture.load()
    try:
        ImageOps.exif_transpose(picture, in_place=True)
    except Exception:  # broken metadata is no reason to refuse a good picture
        picture = picture.copy()
        picture.info = {k: v for k, v in picture.info.items() if k == "transparency"}
    return picture


def to_grey(picture: Image.Image) -> Grey:
    """Upright 8-bit grey of a picture in any mode, at most `WORKING_SIZE` on its longer side.

    Transparency is laid on white, or on black where the visible pixels are light.
    """
    picture = ImageOps.exif_transpose(picture)
    transparent = picture.has_transparency_data
    if transparent:
        # Premultiplied, so that what is invisible has no say in the mean of a reduced pixel.
        picture = picture.convert("RGBA").convert("RGBa")
    elif picture.mode.startswith("I;"):
        picture = picture.convert("I")
    elif picture.mode == "LAB":
        picture = picture.getchannel("L")
    elif picture.mode not in ("L", "RGB", "I", "F"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    if max(picture.size) > WORKING_SIZE:
        picture = picture.reduce(-(-max(picture.size) // WORKING_SIZE))
    if transparent:
        picture = _on_opaque_ground(picture.convert("RGBA"))
    elif picture.mode in ("I", "F"):
        picture = _to_8_bit(picture)
    return np.array(picture.convert("L"))


def is_centred_digit(grey: Grey, size: tuple[int, int]) -> bool:
    """Whether a picture is as MNIST's are: size, black ground, box and centre of mass."""
    if grey.shape != size or np.count_nonzero(grey) * 2 > grey.size or grey.max() < 128:
        return False
    top, bottom, left, right = _extent(grey > 0)
    if max(bottom - top, right - left) > round(max(size) * BOX_SHARE):
        return False
    # The authors' rounding left the centre up to a pixel from the middle.
    return all(
        abs(found + 0.5 - length / 2) <= 1
        for found, length in zip(_centre_of_mass(grey), size, strict=True)
    )


def isolate_strokes(grey: Grey) -> Grey:
    """Strokes light on black, whichever way round they were; the ground's noise removed."""
    values = grey.astype(np.float32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ground = np.median(border)
    strokes = ground - values if values.mean() <= ground else values - ground
    strokes = strokes.clip(0)
    peak = np.percentile(strokes[strokes > 0], 99) if (strokes > 0).any() else 0.0
    if peak < 16:  # of 255: nothing but the ground
        return np.zeros_like(grey)
    threshold = _otsu(strokes / peak)
    # A ramp, not a step: strokes keep the soft edges that MNIST's have.
    low, high = threshold * 0.5, min(1.0, threshold * 1.5)
    scaled: Grey = (((strokes / peak - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)
    return scaled


def centre(strokes: Grey, size: tuple[int, int]) -> Grey:
    """Scales the strokes' bounding box into the central box and centres them by mass."""
    result = np.zeros(size, dtype=np.uint8)
    if not strokes.any():
        return result
    top, bottom, left, right = _extent(strokes > 127 if (strokes > 127).any() else strokes > 0)
    box = Image.fromarray(strokes[top:bottom, left:right])
    scale = min(n * BOX_SHARE / m for n, m in zip(size, (box.height, box.width), strict=True))
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


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of what is set; ends exclusive. Something must be set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _centre_of_mass(grey: Grey) -> tuple[float, float]:
    """Row and column, as pixel indices."""
    mass = grey.astype(np.float64)
    rows, columns = np.indices(grey.shape)
    return float((mass * rows).sum() / mass.sum()), float((mass * columns).sum() / mass.sum())


def _otsu(values: NDArray[np.float32]) -> float:
    """Otsu's threshold (IEEE Trans. SMC 9, 1979) of values in [0, 1]; above 1 counts as 1."""
    counts, edges = np.histogram(values.clip(0, 1), bins=64, range=(0, 1))
    middles = (edges[:-1] + edges[1:]) / 2
    weight_low = counts.cumsum()
    weight_high = counts.sum() - weight_low
    sum_low = (counts * middles).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sum_low / weight_low - (sum_low[-1] - sum_low) / weight_high
        between = weight_low * weight_high * gap**2
    return float(edges[1:][np.nan_to_num(between).argmax()])
