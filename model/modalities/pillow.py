"""Bytes -> an upright Pillow picture, within limits; for all modalities that read pictures."""

import ctypes
import ctypes.util
import io
import logging
import warnings
from importlib import import_module
from pathlib import Path

from PIL import ExifTags, Image

from model.modalities import (
    Cost,
    InputError,
    InputTooLargeError,
    UnreadableInputError,
)
from model.modalities.picture_header import TINY_PIXELS, check_structure, is_tiny, read_header

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
MEDIA_TYPES = ("image/*",)
# A JPEG has no more; what has more is not looked at.
MOST_EXIF_BYTES = 2**16
_TURNS = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A larger JPEG is decoded at reduced size, no smaller than this on its longer side.
DECODED_SIZE = 512
# Registers them now: at the first type it lacks, Pillow would import all of its forty.
for _plugin in ("Png", "Jpeg", "Gif", "Bmp", "WebP", "Tiff"):
    import_module(f"PIL.{_plugin}ImagePlugin")

# Pillow warns of large pictures, which are refused below, and of odd metadata, which is harmless.
warnings.filterwarnings("ignore", module="PIL")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with a file its sender is told


def _silence_libtiff() -> None:
    """Keeps libtiff, which Pillow decodes with, from printing a line per fault of a file."""
    package = Path(Image.__file__).parent
    bundled = [*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")]
    path = str(bundled[0]) if bundled else ctypes.util.find_library("tiff")
    if path is not None:
        library = ctypes.CDLL(path)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


_silence_libtiff()


def decode(content: bytes, max_pixels: int, least: int = DECODED_SIZE) -> Image.Image:
    """Decodes the first frame of a picture and turns it upright, as its EXIF data asks.

    A large JPEG is decoded at reduced size; its whole size is in the result's `info["size"]`.

    Args:
        content: a whole file of one of `picture_header.FORMATS`.
        max_pixels: refused by its header, before decoding, where it has more.
        least: pixels of the longer side that a reduced picture keeps.

    Raises:
        InputError: one subclass per cause.
        MemoryError: it takes more than this process may have.
    """
    name, announced = "PNG", TINY_PIXELS
    if not is_tiny(content):
        header = read_header(content, max_pixels)
        check_structure(content, header)
        name, announced = header.format, header.width * header.height
    try:
        opened = Image.open(io.BytesIO(content), formats=[name])
        if opened.width * opened.height > announced:
            raise UnreadableInputError(f"the {name} image is larger than its header tells")
        whole = opened.size
        picture = load_upright(opened, least)
        if picture.mode in ("P", "PA") and picture.palette is None:
            raise UnreadableInputError(f"the {name} image lacks its palette")
        picture.info["size"] = _as_turned(whole, picture)
        return picture
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise InputTooLargeError(f"the image has more than {max_pixels:,} pixels") from None
    except Exception as error:
        # Broken files make Pillow raise a dozen types, from struct.error to ZeroDivisionError.
        raise UnreadableInputError(f"the {name} image is truncated or broken") from error


_TINY = Cost(1, is_tiny=True)


def cost(content: bytes, max_pixels: int) -> Cost:
    """What decoding a picture file will take.

    Raises:
        InputError: its header tells that `decode` would refuse it.
    """
    if is_tiny(content):
        return _TINY
    return Cost(read_header(content, max_pixels).work)


def decode_within(content: bytes, max_pixels: int, side: int) -> Image.Image:
    """Decodes a picture as `decode` does, in RGBA, and reduces it to fit a square.

    Args:
        content: a whole file.
        max_pixels: see `decode`.
        side: of the square, pixels; a smaller picture stays as it is.
    """
    picture = decode(content, max_pixels)
    if picture.mode != "RGBA":  # or it would be copied
        picture = picture.convert("RGBA")
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX)


def _as_turned(size: tuple[int, int], picture: Image.Image) -> tuple[int, int]:
    """The size, or width and height exchanged: whichever has the picture's proportions."""
    return min((size, size[::-1]), key=lambda s: abs(s[0] * picture.height - s[1] * picture.width))


def load_upright(picture: Image.Image, least: int = DECODED_SIZE) -> Image.Image:
    """Decodes an opened picture and turns it upright, as its EXIF data asks.

    A large JPEG is decoded at reduced size, its longer side no smaller than `least`.

    Raises: what Pillow raises where the file is broken, which may be of any type.
    """
    shrink = max(picture.size) // least
    if shrink > 1:
        picture.draft(None, (picture.width // shrink, picture.height // shrink))
    picture.load()
    return upright(picture)


def upright(picture: Image.Image) -> Image.Image:
    """Turns a picture as its EXIF data asks; one that asks for nothing is itself the result."""
    if len(picture.info.get("exif", b"")) > MOST_EXIF_BYTES:
        return picture
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata is no reason to refuse a good picture
        turn = None
    if turn is None:
        return picture
    # Not ImageOps.exif_transpose: it writes all metadata anew, for a second a megabyte.
    turned = picture.transpose(turn)
    turned.info = {k: v for k, v in picture.info.items() if k == "transparency"}
    return turned
