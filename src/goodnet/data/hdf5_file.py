"""HDF5 files of faces as the CSAW-HackML 2020 competition publishes them: 'data' and 'label'."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from goodnet.core.samples import Samples
from goodnet.data._arrays import find_arrays, rows_of, to_images, to_labels
from goodnet.data._layout import Layout, Selection
from goodnet.data._safety import check_declared, check_memory, reading
from goodnet.errors import UnreadableData

_MOST_CHUNK_BYTES = 2**28  # one compressed chunk is unpacked whole


def recognizes(path: Path) -> bool:
    """Is it a file that ends in .h5, .hdf5 or begins like HDF5?"""
    return path.is_file() and (path.suffix.lower() in (".h5", ".hdf5") or bool(h5py.is_hdf5(path)))


def load(path: Path, selection: Selection) -> Samples:
    """'data' (N, 3, H, W) or (N, H, W, 3), uint8 or float in 0..1 or 0..255, with 'label' (N,) if there.

    The other names of ``_arrays.find_arrays`` are understood as well. Only the rows that ``selection`` draws are read;
    a large uint8 set that is neither chunked nor compressed stays memory-mapped.

    Raises:
        UnreadableData: damaged, without images, or pointing to other files (links, virtual and external storage).
    """
    with reading(path, "an HDF5 file"), h5py.File(path, "r") as file:
        image_name, label_name = find_arrays(list(file), selection, path)
        data_set = _data_set(file, image_name, path)
        images, positions = _rows(data_set, selection, path)
        labels = None
        if label_name is not None:
            labels = to_labels(_all(_data_set(file, label_name, path), path), len(data_set), path)[positions]
        return Samples(images=to_images(images, path), labels=labels, ids=torch.from_numpy(positions))


def _data_set(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """The data set of this name if its values lie in this very file."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise UnreadableData(f"{path}: {name!r} is a link, which could lead to another file; store the data itself")
    data_set = file[name]
    if not isinstance(data_set, h5py.Dataset) or not data_set.shape:
        raise UnreadableData(f"{path}: {name!r} is not an array; a model file, perhaps?")
    if data_set.is_virtual or data_set.external:
        raise UnreadableData(f"{path}: {name!r} takes its values from other files; store the data itself")
    if data_set.dtype.kind not in "buif":
        raise UnreadableData(f"{path}: {name!r} holds {data_set.dtype}, not numbers")
    check_declared(path, data_set.shape, data_set.dtype.itemsize, data_set.id.get_storage_size())
    if data_set.chunks and math.prod(data_set.chunks) * data_set.dtype.itemsize > _MOST_CHUNK_BYTES:
        raise UnreadableData(f"{path}: {name!r} is stored in chunks of {data_set.chunks}, which are too large")
    return data_set


def _all(data_set: h5py.Dataset, path: Path) -> NDArray[Any]:
    check_memory(path, data_set.nbytes)
    values: NDArray[Any] = data_set[()]
    return values


def _rows(data_set: h5py.Dataset, selection: Selection, path: Path) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The wanted rows and their positions."""
    offset = data_set.id.get_offset()  # None for chunked and for very small data sets
    if offset is not None and data_set.id.get_type() == h5py.h5t.py_create(data_set.dtype):
        mapped = np.memmap(path, data_set.dtype, mode="c", offset=offset, shape=data_set.shape)
        return rows_of(mapped, selection, path)
    positions = selection.positions(len(data_set))
    if not data_set.chunks or len(positions) == len(data_set):
        return _all(data_set, path)[positions], positions
    check_memory(path, len(positions) * (data_set.nbytes // len(data_set)))
    rows = np.empty((len(positions), *data_set.shape[1:]), data_set.dtype)
    step = data_set.chunks[0]  # chunk by chunk, so that each is unpacked once
    bounds = np.searchsorted(positions, np.arange(0, len(data_set) + step, step))
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        if start < end:
            first = positions[start] // step * step
            rows[start:end] = data_set[first : first + step][positions[start:end] - first]
    return rows, positions


LAYOUT = Layout(
    name="hdf5_file",
    description="an HDF5 file with the array 'data' of images and, if known, 'label'",
    where="the CSAW-HackML 2020 competition of New York University publishes its face sets so",
    recognizes=recognizes,
    load=load,
)
