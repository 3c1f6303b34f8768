"""Model files of strangers, one module per format: arrays by name, and a graph where the file has one. Nothing runs."""

from collections.abc import Callable, Mapping
from pathlib import Path

from goodnet.errors import UnreadableModel
from goodnet.models.formats import folder, keras_hdf5, npz_file, safetensors_file, torch_file
from goodnet.models.formats._base import ModelFile, reading

__all__ = ["ModelFile", "read", "reading"]

_READERS: Mapping[str, Callable[[Path], ModelFile]] = {
    "torch zip": torch_file.read_zip,
    "torch legacy pickle": torch_file.read_legacy,
    "safetensors": safetensors_file.read,
    "npz": npz_file.read,
    "hdf5": keras_hdf5.read,
    "keras zip": keras_hdf5.read_archive,
    "folder": folder.read,
}


def read(path: Path, kind: str) -> ModelFile:
    """The arrays and the graph of a model file of this ``kind``, which is what the scan judged: ``SafetyReport.kind``.

    Raises:
        UnreadableModel: a kind that holds no model, or damaged.
        UnsafeFile: loading it would run code.
    """
    if kind not in _READERS:
        raise UnreadableModel(f"{path} is of kind {kind!r}; goodnet reads models of the kinds {', '.join(_READERS)}")
    return _READERS[kind](path)
