"""MNIST from folders and mirrors, with digests checked; the IDX parser on what is not IDX."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data import mnist as datasets
from model.data.labelled import DatasetError
from model.data.mnist import MNIST_SHA256, download_mnist, load_mnist, read_idx
from model.modalities.digits.modality import SPEC


def idx(array: np.ndarray) -> bytes:
    lengths = np.array(array.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple))
def test_idx_round_trip(shape: tuple[int, ...]):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(read_idx(idx(array)), array)


@given(st.binary(max_size=64))
def test_what_is_not_idx_is_refused(content: bytes):
    try:
        parsed = read_idx(content)
    except DatasetError:
        return
    assert content == idx(parsed)


def test_real_mnist_is_read(mnist_folder: Path):
    mnist = load_mnist(mnist_folder, SPEC)
    assert mnist.train.inputs[0].shape == mnist.spec.array_shape
    assert mnist.train.inputs.shape == (60_000, 1, 28, 28)
    assert mnist.test.inputs.shape == (10_000, 1, 28, 28)
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(mnist.test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


def test_uncompressed_files_are_read_too(mnist_folder: Path, tmp_path: Path):
    for name in MNIST_SHA256:
        packed = (mnist_folder / f"{name}.gz").read_bytes()
        (tmp_path / name).write_bytes(gzip.decompress(packed))
    assert len(load_mnist(tmp_path, SPEC).train) == 60_000


def test_truncated_file_is_refused_by_name(mnist_folder: Path, tmp_path: Path):
    for name in MNIST_SHA256:
        content = (mnist_folder / f"{name}.gz").read_bytes()
        (tmp_path / f"{name}.gz").write_bytes(content[:-100])
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte"):
        load_mnist(tmp_path, SPEC)


def test_missing_files_are_named(tmp_path: Path):
    (tmp_path / "t10k-labels-idx1-ubyte").touch()
    with pytest.raises(DatasetError) as caught:
        load_mnist(tmp_path, SPEC)
    assert str(tmp_path) in str(caught.value)
    assert "t10k-images-idx3-ubyte" in str(caught.value)
    assert "t10k-labels-idx1-ubyte" not in str(caught.value)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_download_takes_the_first_mirror_with_the_right_bytes(
    mirror: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, address = mirror
    (folder / "wrong").mkdir()
    contents = {name: f"{name} as published".encode() for name in MNIST_SHA256}
    for name, content in contents.items():
        monkeypatch.setitem(MNIST_SHA256, name, hashlib.sha256(content).hexdigest())
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        (folder / "wrong" / f"{name}.gz").write_bytes(gzip.compress(b"other bytes"))
    cache = tmp_path / "cache"
    download_mnist(cache, (f"{address}absent/", f"{address}wrong/", address))
    assert sorted(p.name for p in cache.iterdir()) == sorted(f"{n}.gz" for n in MNIST_SHA256)
    for name, content in contents.items():
        assert gzip.decompress((cache / f"{name}.gz").read_bytes()) == content


def test_download_that_fails_everywhere_says_what_is_wanted_where(
    mirror: tuple[Path, str], tmp_path: Path
):
    folder, address = mirror
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"not gzip")
    with pytest.raises(DatasetError) as caught:
        download_mnist(tmp_path, (address, "http://127.0.0.1:1/"))
    message = str(caught.value)
    assert str(tmp_path) in message
    assert all(name in message for name in MNIST_SHA256)
    assert "127.0.0.1:1/" in message


def test_cache_folder_follows_the_xdg_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.cache_folder() == tmp_path / "perceiver-serve/mnist"
