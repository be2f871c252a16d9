"""MNIST from a local folder of IDX files, or downloaded once into a cache; digests always checked.

IDX is the format of the data set's authors (http://yann.lecun.com/exdb/mnist/): a magic number
whose last byte is the number of axes, the axis lengths as big-endian 32-bit integers, the bytes.
"""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.card import InputSpec
from model.data.labelled import Dataset, DatasetError, Labelled

# SHA-256 of the uncompressed bytes: the .gz containers differ from mirror to mirror.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
LARGEST_DOWNLOAD = 64 * 2**20  # bytes; the largest file has 10 MB


def load_mnist(folder: Path | None, spec: InputSpec) -> Dataset:
    """Reads the 60,000 training and 10,000 test images.

    Args:
        folder: of the four files; none: the cache, filled by download where it is empty.
        spec: the form of the images as they are.

    Raises:
        DatasetError: a file is missing, is not the authors' (by its digest), or no mirror answers.
    """
    if folder is None:
        folder = cache_folder()
        download_mnist(folder)
    missing = [name for name in MNIST_SHA256 if _find(folder, name) is None]
    if missing:
        raise DatasetError(
            f"{folder} lacks {', '.join(missing)} (each also taken as .gz). "
            "Point --data at a folder that holds MNIST's four IDX files, "
            "or leave --data out to download them."
        )
    arrays = {name: read_idx(_read_verified(folder, name)) for name in MNIST_SHA256}
    train, test = (
        Labelled(
            arrays[f"{part}-images-idx3-ubyte"][:, None],
            arrays[f"{part}-labels-idx1-ubyte"].astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    return Dataset(
        name="MNIST",
        digest=hashlib.sha256("".join(MNIST_SHA256.values()).encode()).hexdigest(),
        class_names=tuple(map(str, range(train.labels.max() + 1))),
        spec=spec,
        train=train,
        validation=None,
        test=test,
    )


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/perceiver-serve/mnist, by default ~/.cache/..."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / (
        "perceiver-serve/mnist"
    )


def download_mnist(folder: Path, mirrors: tuple[str, ...] = MNIST_MIRRORS) -> None:
    """Fetches the files that `folder` lacks from the first mirror that gives the right bytes.

    Raises:
        DatasetError: no mirror gave them; the message holds each one's answer.
    """
    import httpx

    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in MNIST_SHA256.items():
        if _find(folder, name) is not None:
            continue
        failures = []
        for mirror in mirrors:
            url = f"{mirror}{name}.gz"
            try:
                packed = _fetch(url)
                if hashlib.sha256(gzip.decompress(packed)).hexdigest() != digest:
                    raise DatasetError("its SHA-256 is not that of the authors' file")
            except (httpx.HTTPError, OSError, EOFError, zlib.error, DatasetError) as error:
                failures.append(f"{url}: {error}")
                continue
            partial = folder / f".{name}.gz.{os.getpid()}"
            partial.write_bytes(packed)
            partial.replace(folder / f"{name}.gz")
            break
        else:
            raise DatasetError(
                f"could not download {name} into {folder} ({'; '.join(failures)}). "
                f"Put {', '.join(MNIST_SHA256)} there (each also taken as .gz), "
                "or point --data at a folder that holds them."
            )


def read_idx(content: bytes) -> NDArray[np.uint8]:
    """Parses an IDX file of unsigned bytes.

    Raises:
        DatasetError: the header is not IDX, or the length does not match it.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DatasetError("not an IDX file of unsigned bytes")
    axes = content[3]
    start = 4 + 4 * axes
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], dtype=">u4"))
    if len(shape) != axes or len(content) - start != int(np.prod(shape)):
        raise DatasetError(f"IDX header tells of shape {shape}, the file has {len(content)} bytes")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _read_verified(folder: Path, name: str) -> bytes:
    path = _find(folder, name)
    assert path is not None
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"cannot read {path}: {error}") from error
    if hashlib.sha256(content).hexdigest() != MNIST_SHA256[name]:
        raise DatasetError(
            f"{path} is not the authors' {name}: its SHA-256 differs. "
            "Delete it to have it downloaded anew."
        )
    return content


def _fetch(url: str) -> bytes:
    import httpx

    with httpx.stream("GET", url, timeout=30, follow_redirects=True) as response:
        response.raise_for_status()
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > LARGEST_DOWNLOAD:
                raise DatasetError(f"more than {LARGEST_DOWNLOAD} bytes")
        return bytes(content)
