"""NumPy files: .npz with images and labels, .npy with images. Nothing is unpickled."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from goodnet.core.samples import Samples
from goodnet.data._arrays import find_arrays, rows_of, to_images, to_labels
from goodnet.data._layout import Layout, Selection
from goodnet.data._safety import check_declared, check_memory, read_rest, reading
from goodnet.errors import UnreadableData, UnsafeFile


def recognizes(path: Path) -> bool:
    """Is it a file that ends in .npz or .npy?"""
    return path.is_file() and path.suffix.lower() in (".npz", ".npy")


def load(path: Path, selection: Selection) -> Samples:
    """The images of a .npz (see ``_arrays.find_arrays`` for the names) or .npy, memory-mapped if a .npy is large.

    Raises:
        UnreadableData: damaged, without images, or larger than it could honestly be.
        UnsafeFile: an array holds pickled objects.
    """
    with reading(path, "a NumPy file"):
        if path.suffix.lower() == ".npy":
            selection.require_no_split(path)
            rows, positions = rows_of(_mapped(path), selection, path)
            return Samples(images=to_images(rows, path), ids=torch.from_numpy(positions))
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            image_name, label_name = find_arrays(names, selection, path)
            images = _member(archive, image_name, path)
            rows, positions = rows_of(images, selection, path)
            labels = None
            if label_name is not None:
                labels = to_labels(_member(archive, label_name, path), len(images), path)[positions]
        return Samples(images=to_images(rows, path), labels=labels, ids=torch.from_numpy(positions))


def _header(stream: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype of the array that follows in the stream."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(stream)
    if version not in readers:
        raise UnreadableData(
            f"{path} uses version {version} of the NumPy format, which is for arrays with named fields"
        )
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise UnsafeFile(f"{path} holds an array of pickled objects; nothing was read", (f"an array of {dtype}",))
    return shape, fortran, dtype


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    """One array of a .npz."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as stream:
        shape, fortran, dtype = _header(stream, path)
        size = math.prod(shape) * dtype.itemsize
        check_declared(path, shape, dtype.itemsize, info.compress_size)
        check_memory(path, size)
        return read_rest(stream, size).view(dtype).reshape(shape, order="F" if fortran else "C")


def _mapped(path: Path) -> NDArray[Any]:
    """The array of a .npy, memory-mapped copy-on-write."""
    with path.open("rb") as stream:
        shape, fortran, dtype = _header(stream, path)
        offset = stream.tell()
    check_declared(path, shape, dtype.itemsize, path.stat().st_size)
    return np.memmap(path, dtype, mode="c", offset=offset, shape=shape, order="F" if fortran else "C")


LAYOUT = Layout(
    name="numpy_file",
    description=".npz with arrays 'images' and 'labels' (or x_train, y_train, x_test, y_test ...), or .npy with images",
    recognizes=recognizes,
    load=load,
)
