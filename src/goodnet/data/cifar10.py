"""CIFAR-10 as published: the binary batches, and the Python pickles without unpickling them freely."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from goodnet.core.samples import Samples
from goodnet.data._layout import Layout, Selection
from goodnet.data._safety import reading
from goodnet.errors import UnreadableData, UnsafeFile

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32

_MOST_BATCH_BYTES = 64 * 2**20  # an official batch has 31 million bytes
_BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_FOLDERS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}


def recognizes(path: Path) -> bool:
    """Does the folder, or its subfolder of the official name, hold batches?"""
    return any(_batches(path).values())


def load(path: Path, selection: Selection) -> Samples:
    """uint8 (N, 3, 32, 32) with labels 0..9, from the binary batches where both kinds are there.

    Source: Krizhevsky, Learning multiple layers of features from tiny images, 2009.

    Raises:
        UnreadableData: a damaged batch.
        UnsafeFile: a pickle that would run something; nothing was run.
    """
    found = {split: files for split, files in _batches(path).items() if files}
    files = found[selection.chosen_split(tuple(found))]
    parts = []
    for file in files:
        with reading(file, "a CIFAR-10 batch"):
            if file.stat().st_size > _MOST_BATCH_BYTES:
                raise UnreadableData(f"{file} is larger than any CIFAR-10 batch")
            parts.append(_read_binary(file) if file.suffix == ".bin" else _read_pickle(file))
    count = sum(len(labels) for _, labels in parts)
    if not count:
        raise UnreadableData(f"{path} holds no images")
    positions = selection.positions(count)
    images, labels = (np.concatenate(column)[positions] for column in zip(*parts, strict=True))
    if labels.max() > 9:
        raise UnreadableData(f"{path}: CIFAR-10 has labels 0 to 9, these go up to {labels.max()}")
    return Samples(
        images=torch.from_numpy(images.reshape(-1, 3, 32, 32)),
        labels=torch.from_numpy(labels.astype(np.int64)),
        ids=torch.from_numpy(positions),
        class_names=CLASS_NAMES,
    )


def _batches(path: Path) -> dict[str, list[Path]]:
    """The batches of each split that are there, from the first folder that holds any."""
    candidates = [(path / name, suffix) for name, suffix in _FOLDERS.items()]
    for folder, suffix in [(path, ".bin"), (path, ""), *candidates]:
        found = {
            split: [file for name in names if (file := folder / f"{name}{suffix}").is_file()]
            for split, names in _BATCHES.items()
        }
        if any(found.values()):
            return found
    return {}


def _read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels (N, 3072) and labels (N,): each record is one label byte and the planes red, green, blue."""
    records = np.frombuffer(path.read_bytes(), np.uint8)
    if len(records) % (1 + PIXELS):
        raise UnreadableData(
            f"{path} is not a whole number of records of {1 + PIXELS} bytes; is the download complete?"
        )
    records = records.reshape(-1, 1 + PIXELS)
    return records[:, 1:], records[:, 0]


def _read_pickle(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels (N, 3072) and labels (N,) of a Python batch."""
    batch = _ArraysOnly(path).load()
    if not isinstance(batch, dict):
        raise UnreadableData(f"{path} is not a CIFAR-10 batch")
    data, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    if not isinstance(data, _PickledArray) or not isinstance(labels, list):
        raise UnreadableData(f"{path} is not a CIFAR-10 batch: it has no 'data' and 'labels'")
    if not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise UnreadableData(f"{path}: CIFAR-10 has labels 0 to 9")
    pixels = data.read((len(labels), PIXELS))
    return pixels, np.array(labels, np.uint8)


class _PickledDtype:
    """Stands in for numpy.dtype while unpickling: remembers its arguments."""

    def __init__(self, code: object = "", *_: object):
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment: nothing that matters for bytes."""


class _PickledArray:
    """Stands in for numpy.ndarray and its constructor: NumPy itself never sees a stranger's state."""

    def __init__(self, *_: object):
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def read(self, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The array, which must be uint8 in C order and have this shape."""
        match self.state:
            case (_, tuple() as stored, _PickledDtype(code="u1" | b"u1"), fortran, bytes() as raw) if not fortran:
                if stored == shape and len(raw) == shape[0] * shape[1]:
                    return np.frombuffer(raw, np.uint8).reshape(shape)
        raise UnreadableData(f"its array is not uint8 of shape {shape}")


class _ArraysOnly(pickle._Unpickler):
    """Unpickles containers, numbers, text and NumPy arrays, the latter as inert stand-ins; refuses all else.

    The Python implementation, because the one in C takes memory for whatever memo index a file names.
    """

    _ALLOWED = {
        ("numpy", "dtype"): _PickledDtype,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    }

    def __init__(self, path: Path):
        super().__init__(io.BytesIO(path.read_bytes()), encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise UnsafeFile(
                f"{self._path} would run {module}.{name} when unpickled; nothing was run. "
                "A genuine CIFAR-10 batch does not: download it again, or use the binary version",
                (f"{module}.{name}",),
            )
        return self._ALLOWED[module, name]


LAYOUT = Layout(
    name="cifar10",
    description="a folder with data_batch_1.bin to data_batch_5.bin and test_batch.bin, or the Python batches",
    where="CIFAR-10 by Alex Krizhevsky, University of Toronto, binary or Python version",
    recognizes=recognizes,
    load=load,
)
