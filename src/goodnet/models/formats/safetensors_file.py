"""Arrays in a safetensors file."""

from pathlib import Path

import torch
from safetensors import safe_open

from goodnet.errors import UnreadableModel
from goodnet.models.formats._base import MAX_ARRAYS, ModelFile, reading


def read(path: Path) -> ModelFile:
    """The arrays of a ``.safetensors`` file.

    Raises:
        UnreadableModel: truncated, absurd, or other than real numbers.
    """
    with reading(path, "a safetensors file"), safe_open(path, framework="pt", device="cpu") as file:
        names = list(file.keys())
        if len(names) > MAX_ARRAYS:
            raise UnreadableModel(f"{path} holds {len(names):,} arrays; that is no network")
        arrays = {}
        for name in names:
            value = file.get_tensor(name)
            if value.is_complex():
                raise UnreadableModel(f"{path}: {name!r} is complex")
            dtype = torch.float32 if value.is_floating_point() else torch.int64
            arrays[name] = value.to(dtype, copy=True)
    return ModelFile("safetensors", arrays, layout="torch")
