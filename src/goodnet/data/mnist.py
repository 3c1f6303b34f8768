"""MNIST and the sets that come in its files (Fashion-MNIST, KMNIST): idx, plain or gzipped."""

import gzip
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from goodnet.core.samples import Samples
from goodnet.data._arrays import rows_of, to_images, to_labels
from goodnet.data._layout import Layout, Selection
from goodnet.data._safety import check_declared, check_memory, read_exactly, read_rest, reading
from goodnet.errors import UnreadableData

_PREFIXES = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 8  # the idx type code


def recognizes(path: Path) -> bool:
    """Does the folder hold the images of a split?"""
    return path.is_dir() and bool(_image_files(path))


def load(path: Path, selection: Selection) -> Samples:
    """uint8 (N, 1, H, W); labels if their file is there; an unpacked file that is large stays memory-mapped.

    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998.

    Raises:
        UnreadableData: a damaged file, or one that declares more than it holds.
    """
    image_files = _image_files(path)
    split = selection.chosen_split(tuple(image_files))
    image_file, label_file = image_files[split], _file(path, split, "labels", 1)
    with reading(image_file, "an idx file"):
        stored = _read_idx(image_file, 3)
        rows, positions = rows_of(stored, selection, image_file)
        images = to_images(rows, image_file)
    labels = None
    if label_file is not None:
        with reading(label_file, "an idx file"):
            labels = to_labels(_read_idx(label_file, 1), len(stored), label_file)[positions]
    return Samples(images=images, labels=labels, ids=torch.from_numpy(positions))


def _image_files(folder: Path) -> dict[str, Path]:
    """The image file of each split that is there."""
    return {split: file for split in _PREFIXES if (file := _file(folder, split, "images", 3))}


def _file(folder: Path, split: str, what: str, dimensions: int) -> Path | None:
    """The file in one of the spellings that are about: train-images-idx3-ubyte, train-images.idx3-ubyte, with .gz."""
    spellings = [f"{_PREFIXES[split]}-{what}{mark}idx{dimensions}-ubyte{gz}" for mark in "-." for gz in ("", ".gz")]
    return next((folder / name for name in spellings if (folder / name).is_file()), None)


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes; memory-mapped if the file is not compressed."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        header = read_exactly(stream, 4 + 4 * dimensions)
        if tuple(header[:4]) != (0, 0, _UNSIGNED_BYTE, dimensions):
            raise UnreadableData(f"{path} does not begin like an idx file of {dimensions}-dimensional unsigned bytes")
        shape = tuple(int(length) for length in header[4:].view(">u4"))
        size, on_disk = math.prod(shape), path.stat().st_size
        check_declared(path, shape, 1, on_disk)
        if path.suffix == ".gz":
            check_memory(path, size)
            return read_rest(stream, size).reshape(shape)
    if size != on_disk - len(header):
        raise UnreadableData(f"{path} declares shape {shape}, but holds {on_disk - len(header):,} bytes")
    return np.memmap(path, np.uint8, mode="c", offset=len(header), shape=shape)


LAYOUT = Layout(
    name="mnist",
    description="a folder with train-images-idx3-ubyte, t10k-images-idx3-ubyte and their labels, plain or .gz",
    where="MNIST by Yann LeCun; Fashion-MNIST by Zalando Research and KMNIST use the same files",
    recognizes=recognizes,
    load=load,
)
