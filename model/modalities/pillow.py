"""Bytes -> an upright Pillow picture, within limits; for all modalities that read pictures."""

import ctypes
import ctypes.util
import io
import logging
import struct
import warnings
from importlib import import_module
from pathlib import Path

from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from model.modalities import (
    EmptyInputError,
    InputError,
    InputTooLargeError,
    UnreadableInputError,
    UnsupportedInputError,
)

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
MEDIA_TYPES = ("image/*",)
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
_SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
# A larger JPEG is decoded at reduced size, no smaller than this on its longer side.
DECODED_SIZE = 512
# Of a picture that is decoded in less time than another thread takes to wake.
TINY_BYTES = 4096
TINY_PIXELS = 32 * 32
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
        content: a whole file of one of `FORMATS`; its own bytes tell which.
        max_pixels: refused by its header, before decoding, where it has more.
        least: pixels of the longer side that a reduced picture keeps.

    Raises:
        InputError: one subclass per cause.
    """
    if not content:
        raise EmptyInputError("the image is empty: it has no bytes")
    name = _format(content)
    if name is None:
        raise UnsupportedInputError(f"the image is of none of the types read: {', '.join(FORMATS)}")
    try:
        opened = Image.open(io.BytesIO(content), formats=[name])
        _check_size(opened, max_pixels)
        whole = opened.size
        picture = load_upright(opened, least)
        picture.info["size"] = _as_turned(whole, picture)
        return picture
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputTooLargeError(f"the image has more than {max_pixels:,} pixels") from None
    except Exception as error:
        # Broken files make Pillow raise a dozen types, from struct.error to ZeroDivisionError.
        raise UnreadableInputError(f"the {name} image is truncated or broken") from error


def is_tiny(content: bytes) -> bool:
    """Whether it is a PNG of a few pixels, by its header."""
    if len(content) > TINY_BYTES or not content.startswith(b"\x89PNG") or len(content) < 24:
        return False
    width, height = struct.unpack_from(">II", content, 16)
    return bool(width * height <= TINY_PIXELS)


def _as_turned(size: tuple[int, int], picture: Image.Image) -> tuple[int, int]:
    """The size, or width and height exchanged: whichever has the picture's proportions."""
    return min((size, size[::-1]), key=lambda s: abs(s[0] * picture.height - s[1] * picture.width))


def _format(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, magic in _SIGNATURES.items() if content.startswith(magic)), None)


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if not width or not height:
        raise UnreadableInputError(f"the image has no pixels: its size is {width} x {height}")
    if isinstance(picture, TiffImageFile):
        # A tile is decoded whole, however little of it the picture shows.
        tags = picture.tag_v2
        width = max(width, tags.get(TILEWIDTH, 0))
        height = max(height, tags.get(TILELENGTH, 0))
    if width * height > max_pixels:
        raise InputTooLargeError(
            f"the image has {width} x {height} pixels, more than the {max_pixels:,} allowed"
        )


def load_upright(picture: Image.Image, least: int = DECODED_SIZE) -> Image.Image:
    """Decodes an opened picture and turns it upright, as its EXIF data asks.

    A large JPEG is decoded at reduced size, its longer side no smaller than `least`.

    Raises: what Pillow raises where the file is broken, which may be of any type.
    """
    shrink = max(picture.size) // least
    if shrink > 1:
        picture.draft(None, (picture.width // shrink, picture.height // shrink))
    picture.load()
    if picture.format == "PNG" and not picture.info:
        return picture  # nothing could ask for it
    try:
        ImageOps.exif_transpose(picture, in_place=True)
    except Exception:  # broken metadata is no reason to refuse a good picture
        picture = picture.copy()
        picture.info = {k: v for k, v in picture.info.items() if k == "transparency"}
    return picture
