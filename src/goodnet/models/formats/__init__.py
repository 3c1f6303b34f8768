"""Model files of strangers, one module per format: arrays by name, and a graph where the file has one. Nothing runs."""

import zipfile
from collections.abc import Callable
from pathlib import Path

from goodnet.errors import UnreadableModel
from goodnet.models.formats import folder, keras_hdf5, npz_file, safetensors_file, torch_file
from goodnet.models.formats._base import ModelFile, reading

__all__ = ["ModelFile", "read", "reading"]

_READABLE = (
    ".pt .pth .tar .bin (torch), .safetensors, .npz, .h5 .hdf5 .keras (Keras), or a folder of goodnet.save_model"
)
_NOT_YET = {".onnx": "ONNX", ".pb": "TensorFlow", ".tflite": "TensorFlow Lite", ".mlmodel": "Core ML"}


def read(path: Path) -> ModelFile:
    """The arrays and the graph of a model file; its first bytes, not its name, tell the format.

    Raises:
        UnreadableModel: no such file, or none that goodnet reads, or damaged.
        UnsafeFile: loading it would run code.
    """
    if path.is_dir():
        return folder.read(path)
    if not path.is_file():
        raise UnreadableModel(f"there is no model file {path}")
    return _reader(path)(path)


def _reader(path: Path) -> Callable[[Path], ModelFile]:
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        return _zip_reader(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return keras_hdf5.read
    if start[8:9] == b"{":
        return safetensors_file.read
    if path.suffix.lower() in _NOT_YET:
        raise UnreadableModel(
            f"{path}: {_NOT_YET[path.suffix.lower()]} is not yet supported; goodnet reads {_READABLE}"
        )
    if start[:1] == b"\x80":  # the first opcode of a pickle
        return torch_file.read
    raise UnreadableModel(f"{path} is no model file that goodnet reads: {_READABLE}")


def _zip_reader(path: Path) -> Callable[[Path], ModelFile]:
    """torch, Keras 3 and numpy all write zip files; what lies in them tells which."""
    with reading(path, "a zip file"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if {"config.json", "model.weights.h5"} <= set(names):
        return keras_hdf5.read_archive
    if names and all(name.endswith(".npy") for name in names):
        return npz_file.read
    return torch_file.read
