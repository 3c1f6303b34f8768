"""Arrays of unknown origin to images and labels: which axis is the channel, is it 0..1 or 0..255, what is it called."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goodnet.data._layout import Selection
from goodnet.data._safety import LARGE, check_memory
from goodnet.errors import UnreadableData

_IMAGE_NAMES = ("images", "image", "data", "x")
_LABEL_NAMES = ("labels", "label", "targets", "y")
_SPLITS = ("train", "test", "val", "valid", "validation")  # the default comes first
_SLACK = 0.002  # resizing leaves values a little outside their range
_MOST_CLASSES = 10**6
_CHUNK = 1024


def find_arrays(names: Collection[str], selection: Selection, path: Path) -> tuple[str, str | None]:
    """The names of the image and the label array (None if there is none) of the wanted split.

    Understood are images, image, data, x and labels, label, targets, y, plain or with a split before or after them
    (x_train, test_images), in any case.

    Raises:
        UnreadableData: no array has such a name.
    """
    by_name = {name.lower(): name for name in sorted(names)}
    images = {split: name for split in ("", *_SPLITS) if (name := _first(_IMAGE_NAMES, split, by_name))}
    if not images:
        raise UnreadableData(
            f"{path} holds {', '.join(map(repr, sorted(names)[:8])) or 'nothing'}; "
            "the images should be called 'images', 'data' or 'x' (or 'x_train', 'x_test'), the labels 'labels' or 'y'"
        )
    split = ""
    if "" in images:
        selection.require_no_split(path)
    else:
        split = selection.chosen_split(tuple(images))
    return images[split], _first(_LABEL_NAMES, split, by_name)


def _first(bases: tuple[str, ...], split: str, by_name: dict[str, str]) -> str | None:
    for base in bases:
        for name in (f"{base}_{split}", f"{split}_{base}") if split else (base,):
            if name in by_name:
                return by_name[name]
    return None


def rows_of(array: NDArray[Any], selection: Selection, path: Path) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The wanted rows of an array that may be memory-mapped, and their positions; all of a LARGE one stay mapped."""
    positions = selection.positions(len(array))
    if len(positions) == len(array) and (array.nbytes > LARGE or not isinstance(array, np.memmap)):
        return array, positions
    check_memory(path, len(positions) * (array.nbytes // max(len(array), 1)))
    return np.asarray(array[positions]), positions


def to_images(array: NDArray[Any], path: Path) -> Tensor:
    """uint8 (N, C, H, W) from (N, H, W), (N, C, H, W) or (N, H, W, C); C is 1 or 3, or 4, of which alpha is dropped.

    Whole numbers are 0..255, floats 0..1 or 0..255 by their largest value, bools 0 and 1. A LARGE uint8 array is not
    copied.

    Raises:
        UnreadableData: another shape, another range, or not a number.
    """
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3, 4) and array.shape[3] in (1, 3, 4):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3, 4) or 0 in array.shape:
        raise UnreadableData(
            f"{path}: images should be (N, H, W), (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels, "
            f"got {array.shape}"
        )
    array = array[:, : 3 if array.shape[1] == 4 else None]
    if array.dtype == np.uint8:
        return torch.from_numpy(array if array.nbytes > LARGE else np.ascontiguousarray(array))
    check_memory(path, array.size)
    scale = _scale(array, path)
    images = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), _CHUNK):
        images[start : start + _CHUNK] = (array[start : start + _CHUNK] * scale).round().clip(0, 255)
    return torch.from_numpy(images)


def _scale(array: NDArray[Any], path: Path) -> float:
    """What brings the values of a bool, int or float array to 0..255."""
    if array.dtype.kind not in "buif":
        raise UnreadableData(f"{path}: images should be numbers, got {array.dtype}")
    if array.dtype.kind == "b":
        return 255.0
    low, high = float(array.min()), float(array.max())
    # written so that NaN, which compares false with everything, is refused as well
    if array.dtype.kind == "f" and low >= -_SLACK and high <= 1 + _SLACK:
        return 255.0
    if low >= -255 * _SLACK and high <= 255 * (1 + _SLACK):
        return 1.0
    raise UnreadableData(
        f"{path}: pixels should be 0..255 or floats in 0..1, these are {low:g}..{high:g}; "
        "if they were normalized, store them as they were before"
    )


def to_labels(array: NDArray[Any], count: int, path: Path) -> Tensor:
    """int64 (N,) from whole numbers of any type, (N,) or (N, 1).

    Raises:
        UnreadableData: not one label for each of ``count`` images, or not whole numbers from 0 on.
    """
    if array.shape not in ((count,), (count, 1)):
        raise UnreadableData(f"{path}: {count} images need labels of shape ({count},), got {array.shape}")
    if array.dtype.kind not in "uif" or not np.array_equal(array, np.trunc(array)):
        raise UnreadableData(f"{path}: labels should be whole numbers, these are {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() < _MOST_CLASSES):
        raise UnreadableData(
            f"{path}: labels should be 0 to {_MOST_CLASSES - 1}, these are {array.min():g}..{array.max():g}"
        )
    return torch.from_numpy(array.reshape(-1).astype(np.int64))
