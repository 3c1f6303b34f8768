"""Arrays in an .npz file, without pickles, with every size checked before memory is taken."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from goodnet.errors import UnreadableModel, UnsafeFile
from goodnet.models.formats._base import MAX_ARRAYS, ModelFile, check_size, reading, tensor_of


def read(path: Path) -> ModelFile:
    """The arrays of an ``.npz`` file; the kernels may lie either way.

    Raises:
        UnsafeFile: an array holds pickled objects.
        UnreadableModel: truncated, absurd, or other than real numbers.
    """
    arrays = {}
    with reading(path, "an npz file"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_ARRAYS:
            raise UnreadableModel(f"{path} holds {len(members):,} arrays; that is no network")
        check_size(path, sum(member.file_size for member in members))
        for member in members:
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as stream:
                _check_header(path, name, stream, member.file_size)
            with archive.open(member) as stream:
                arrays[name] = tensor_of(path, name, npy.read_array(stream, allow_pickle=False))
    return ModelFile("npz", arrays)


def _check_header(path: Path, name: str, stream: IO[bytes], size: int) -> None:
    """The header must describe exactly the bytes that follow it."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise UnreadableModel(f"{path}: array {name!r} has an unknown npy version {version}")
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
    if dtype.hasobject:
        raise UnsafeFile(f"{path}: array {name!r} holds pickled objects; nothing was loaded", findings=(name,))
    if any(side < 0 for side in shape) or stream.tell() + math.prod(shape) * np.dtype(dtype).itemsize != size:
        raise UnreadableModel(f"{path}: array {name!r} claims shape {shape}, which is not what the file holds")
