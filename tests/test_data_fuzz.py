"""Whatever bytes a file holds, loading it gives Samples or an error of goodnet, and gives it soon."""

import contextlib
import gzip
import io
import pickle
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from goodnet import Samples, load_data
from goodnet.errors import GoodnetError

SOON = settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
PIXELS = np.arange(2 * 3 * 32 * 32, dtype=np.uint32).astype(np.uint8).reshape(2, 3, 32, 32)


def load_bytes(name: str, content: bytes) -> None:
    """Load a folder with this one file; nothing but a goodnet error may come out."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        with contextlib.suppress(GoodnetError):
            assert isinstance(load_data(folder), Samples)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` with a few bytes changed, or cut off somewhere."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, min(len(content) - 1, 400)) | st.integers(0, len(content) - 1))
        changed[position] = draw(st.integers(0, 255))
    return bytes(changed[: draw(st.none() | st.integers(0, len(content)))])


def encoded(suffix: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(stream, suffix)
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, images=PIXELS, labels=np.array([0, 1]))
    return stream.getvalue()


def hdf5() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("data", data=PIXELS, chunks=True, compression="gzip")
        file["label"] = [0, 1]
    return stream.getvalue()


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, PIXELS)
    return stream.getvalue()


IDX = bytes([0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 32, 0, 0, 0, 32]) + PIXELS.tobytes()
BATCH = pickle.dumps({"data": PIXELS.reshape(2, -1), "labels": [3, 4]}, protocol=4)
TABLE = b"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n00000.ppm;32;32;1;2;30;31;5\n"
NAMES = st.sampled_from(
    ["a.png", "a.jpg", "a.ppm", "a.bmp", "a.webp", "a.gif", "a.npz", "a.npy", "a.h5", "test_batch", "test_batch.bin",
     "train-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "a.dat"]
)  # fmt: skip


@SOON
@given(NAMES, st.binary(max_size=4000))
def test_random_bytes_under_any_name(name: str, content: bytes) -> None:
    load_bytes(name, content)


@SOON
@given(st.data(), st.sampled_from(["png", "jpeg", "ppm", "bmp", "webp", "gif"]))
def test_damaged_images(data: st.DataObject, suffix: str) -> None:
    load_bytes(f"a.{suffix}", data.draw(damaged(encoded(suffix))))


@SOON
@given(damaged(npz()), damaged(npy()))
def test_damaged_numpy_files(archive: bytes, array: bytes) -> None:
    load_bytes("a.npz", archive)
    load_bytes("a.npy", array)


@SOON
@given(st.text(st.characters(max_codepoint=127), max_size=200) | st.lists(st.integers(-(2**70), 2**70), max_size=5))
def test_strange_headers_of_numpy_arrays(header: str | list[int]) -> None:
    if isinstance(header, list):
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {tuple(header)}}}"
    text = header.encode() + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(100)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("images.npy", member)
    load_bytes("a.npz", stream.getvalue())
    load_bytes("a.npy", member)


@SOON
@given(damaged(IDX), st.booleans())
def test_damaged_idx_files(content: bytes, packed: bool) -> None:
    load_bytes("train-images-idx3-ubyte", content)
    load_bytes("train-images-idx3-ubyte.gz", gzip.compress(content) if packed else content)


@SOON
@given(damaged(BATCH) | st.binary(max_size=300).map(lambda code: b"\x80\x04" + code + b"."))
def test_damaged_and_random_pickles(content: bytes) -> None:
    load_bytes("test_batch", content)


@SOON
@given(damaged(TABLE) | st.binary(max_size=200).map(lambda rows: TABLE + rows))
def test_damaged_tables_of_signs(table: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        signs = Path(folder) / "00005"
        signs.mkdir()
        Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(signs / "00000.ppm")
        (signs / "GT-00005.csv").write_bytes(table)
        with contextlib.suppress(GoodnetError):
            assert isinstance(load_data(folder), Samples)


@settings(SOON, derandomize=True)  # the HDF5 library is C: the same bytes every time, so that a crash can be found
@given(damaged(hdf5()))
def test_damaged_hdf5_files(content: bytes) -> None:
    load_bytes("a.h5", content)


def test_an_hdf5_file_that_is_cut_off_anywhere() -> None:
    content = hdf5()
    for length in range(0, len(content), max(1, len(content) // 80)):
        load_bytes("a.h5", content[:length])
