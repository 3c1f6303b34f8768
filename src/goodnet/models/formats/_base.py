"""What every format gives, and the limits that every format keeps."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from goodnet.errors import GoodnetError, UnreadableModel, UnsafeFile

if TYPE_CHECKING:
    from goodnet.models.formats.folder import Description

MAX_ARRAYS = 100_000
# compressed weights of heavily pruned networks reach about fifty; a bomb has a thousand
MAX_EXPANSION = 100
SMALL = 1 << 20  # bytes that any file may ask for


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Attributes:
        format: for people, such as "Keras HDF5".
        arrays: by name, in the order of the file.
        layout: "torch" for kernels (out, in, h, w), "keras" for (h, w, in, out), "" when the format does not say.
        graph: the ``model_config`` of Keras where the file holds one.
        description: the ``model.json`` of a folder that goodnet saved.
    """

    format: str
    arrays: Mapping[str, Tensor]
    layout: str = ""
    graph: Mapping[str, Any] | None = None
    description: "Description | None" = None


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises into UnreadableModel that names the file."""
    try:
        yield
    except UnsafeFile as error:
        raise error if str(path) in str(error) else UnsafeFile(f"{path}: {error}", error.findings) from error
    except GoodnetError as error:
        raise error if str(path) in str(error) else UnreadableModel(f"{path}: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableModel(f"{path} cannot be read as {kind}: {reason}") from error


def check_size(path: Path, wanted: int) -> None:
    """Refuse a file whose arrays would take ``wanted`` bytes, far more than the file has.

    Raises:
        UnreadableModel: the file is absurd or a decompression bomb.
    """
    has = path.stat().st_size
    if wanted > MAX_EXPANSION * has + SMALL:
        raise UnreadableModel(f"{path} has {has:,} bytes but declares {wanted:,} bytes of arrays; it is refused")


def tensor_of(path: Path, name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """A float32 or int64 tensor with its own memory.

    Raises:
        UnreadableModel: the array does not hold real numbers.
    """
    if array.dtype.kind == "f":
        return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    if array.dtype.kind in "iub":
        return torch.from_numpy(np.array(array, dtype=np.int64, order="C"))
    raise UnreadableModel(f"{path}: array {name!r} holds {array.dtype}, not numbers that a network can use")
