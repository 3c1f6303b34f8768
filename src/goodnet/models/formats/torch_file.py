"""Checkpoints of torch.save, zip and legacy: read with the weights-only unpickler, never with the free one."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from goodnet.errors import UnreadableModel, UnsafeFile
from goodnet.models.formats._base import MAX_ARRAYS, ModelFile, check_size, reading

# where training scripts put the weights, in the order in which they are looked for
_WRAPPINGS = ("state_dict", "model_state_dict", "net", "model", "network", "model_state", "weights", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def read_zip(path: Path) -> ModelFile:
    """The state dict in a file of ``torch.save``.

    Raises:
        UnsafeFile: the file holds objects other than tensors and plain containers, such as a whole pickled model.
        UnreadableModel: truncated, absurd, TorchScript, or no weights in it.
    """
    _check_zip(path)
    # a memory map reads no further than the file, whatever sizes the pickle claims
    return ModelFile("torch zip", _read(path, mmap=True), layout="torch")


def read_legacy(path: Path) -> ModelFile:
    """The same for a file of ``torch.save`` before torch 1.6."""
    return ModelFile("torch legacy", _read(path, mmap=False), layout="torch")


def _read(path: Path, mmap: bool) -> dict[str, Tensor]:
    with reading(path, "a torch checkpoint"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own storage classes
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            raise _refusal(path, str(error)) from error
        arrays = _strip_prefixes(_state_dict(path, content))
        if len(arrays) > MAX_ARRAYS:
            raise UnreadableModel(f"{path} holds {len(arrays):,} arrays; that is no network")
        return {name: _dense(path, name, value) for name, value in arrays.items()}


def _check_zip(path: Path) -> None:
    """torch.save stores without compression, so the records cannot be larger than the file."""
    with reading(path, "a torch zip file"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise UnreadableModel(f"{path} is TorchScript, which is code; save model.state_dict() with torch.save instead")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UnreadableModel(
            f"{path} has compressed records, which torch.save never writes; save the state dict again"
        )
    check_size(path, sum(member.file_size for member in members))


def _refusal(path: Path, message: str) -> UnsafeFile | UnreadableModel:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if not found:
        return UnreadableModel(f"{path} cannot be read as a torch checkpoint: its pickle is damaged")
    name = found[1]
    return UnsafeFile(
        f"{path} holds a pickled {name}, not only weights, and unpickling it could run code; nothing was loaded. "
        "Where you trust the source, save the weights alone: torch.save(model.state_dict(), path)",
        findings=(name,),
    )


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """The mapping from names to tensors, wherever the training script put it."""
    if isinstance(content, Mapping):
        if _weights_of(content):
            return _weights_of(content)
        for key in (*_WRAPPINGS, *(key for key in content if "optim" not in str(key))):
            inner = content.get(key)
            if isinstance(inner, Mapping) and (weights := _weights_of(inner)):
                return weights
    raise UnreadableModel(f"{path} holds no state dict; save one with torch.save(model.state_dict(), path)")


def _weights_of(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a mapping that is a state dict, else nothing."""
    found = {name: value for name, value in mapping.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return found if any(value.ndim >= 2 for value in found.values()) else {}


def _strip_prefixes(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what DataParallel and other wrappers put before every name."""
    while prefix := next((start for start in _PREFIXES if all(name.startswith(start) for name in arrays)), ""):
        arrays = {name.removeprefix(prefix): value for name, value in arrays.items()}
    return arrays


def _dense(path: Path, name: str, value: Tensor) -> Tensor:
    """A copy with its own memory, float32 or int64."""
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
        raise UnreadableModel(f"{path}: {name!r} is not a dense array of real numbers")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UnreadableModel(f"{path}: {name!r} claims {tuple(value.shape)}, more numbers than the file holds")
    dtype = torch.float32 if value.is_floating_point() else torch.int64
    return value.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
