"""Keras files: HDF5 of Keras 2 and 3, weights only or whole models, and the .keras zip. Read as arrays and JSON."""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from goodnet.errors import UnreadableModel
from goodnet.models.formats._base import MAX_ARRAYS, ModelFile, check_size, reading, tensor_of

_MAX_DEPTH = 32


def read(path: Path) -> ModelFile:
    """The arrays, as ``layer/.../parameter``, and the graph of a Keras file that has one.

    The HDF5 library can take all memory, or crash, on bytes that were damaged on purpose: let ``file_safety``, which
    opens the file in a process of its own, look at it first.

    Raises:
        UnreadableModel: truncated, absurd, with links out of the file, or no Keras file.
    """
    with reading(path, "a Keras HDF5 file"), h5py.File(path, "r") as file:
        _check(path, file)
        graph = _json(path, file.attrs["model_config"]) if "model_config" in file.attrs else None
        return ModelFile("Keras HDF5", _arrays(path, file), layout="keras", graph=graph)


def read_archive(path: Path) -> ModelFile:
    """The same for a ``.keras`` file, a zip of ``config.json`` and ``model.weights.h5``."""
    with reading(path, "a .keras file"), zipfile.ZipFile(path) as archive:
        wanted = [archive.getinfo(name) for name in ("config.json", "model.weights.h5")]
        check_size(path, sum(member.file_size for member in wanted))
        graph = _json(path, archive.read("config.json"))
        with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
            _check(path, file)
            return ModelFile("Keras 3 archive", _arrays(path, file), layout="keras", graph=graph)


def _json(path: Path, text: Any) -> Mapping[str, Any]:
    if isinstance(text, np.ndarray):  # some writers store a list of one
        text = text.item()
    graph = json.loads(text)
    if not isinstance(graph, dict):
        raise UnreadableModel(f"{path}: its model_config is not a model")
    return graph


def _check(path: Path, file: h5py.File) -> None:
    """Every link must stay inside, and all arrays together must be in proportion to the file."""
    total = 0
    for count, (name, item) in enumerate(_walk(path, file, "", 0)):
        if count > MAX_ARRAYS:
            raise UnreadableModel(f"{path} holds more than {MAX_ARRAYS:,} objects; that is no network")
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise UnreadableModel(f"{path}: {name!r} keeps its numbers in another file; it is refused")
            total += item.size * item.dtype.itemsize if item.size else 0
    check_size(path, total)


def _walk(path: Path, group: h5py.Group, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Everything below ``group``, by name; only hard links are followed."""
    if depth > _MAX_DEPTH:
        raise UnreadableModel(f"{path}: groups lie more than {_MAX_DEPTH} deep; that is no network")
    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise UnreadableModel(f"{path}: {name!r} is a link out of its place in the file; it is refused")
        item = group[key]
        yield name, item
        if isinstance(item, h5py.Group):
            yield from _walk(path, item, f"{name}/", depth + 1)


def _arrays(path: Path, file: h5py.File) -> dict[str, Tensor]:
    found = file.get("model_weights", file)
    if "layer_names" in found.attrs or "layer_names0" in found.attrs:
        datasets = _legacy_datasets(found)
    elif container := _container(found):
        datasets = _keras_3_datasets(container, ())
    else:
        raise UnreadableModel(f"{path} is HDF5 but not of Keras: it has neither layer names nor layers")
    arrays, total = {}, 0
    for name, dataset in datasets:
        total += dataset.nbytes  # again, because a file may name one array many times
        check_size(path, total)
        arrays[name] = tensor_of(path, name, dataset[()])
    return arrays


def _legacy_datasets(group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """Keras 2, and Keras 3 in the old layout: names of layers and weights in attributes, in the order of the model."""
    for layer in _names(group, "layer_names"):
        for weight in _names(group[layer], "weight_names"):
            # weight "block/conv/kernel:0" in group "block" is the parameter kernel of the layer conv inside block
            *owners, parameter = [part for part in re.sub(r":\d+$", "", weight).split("/") if part]
            inner = owners[owners.index(layer) + 1 :] if layer in owners else owners
            yield "/".join([layer, *inner, parameter]), group[layer][weight]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of strings; a long one is spread over the attributes name0, name1, ..."""
    values = list(group.attrs.get(attribute, ()))
    chunk = 0
    while f"{attribute}{chunk}" in group.attrs:
        values += list(group.attrs[f"{attribute}{chunk}"])
        chunk += 1
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _container(group: h5py.Group) -> h5py.Group | None:
    """Where Keras 3 keeps the layers of a model; early versions called it otherwise."""
    return group.get("layers") or group.get("_layer_checkpoint_dependencies")


def _keras_3_datasets(group: h5py.Group, owners: tuple[str, ...]) -> Iterator[tuple[str, h5py.Dataset]]:
    """Keras 3: ``layers/conv2d/vars/0``. The group is named after the class; newer files have the layer's name."""
    for key in sorted(group, key=_natural):
        variables = group[key].get("vars", {})
        name = str(variables.attrs["name"]) if variables and "name" in variables.attrs else key
        for number in sorted(variables, key=_natural):
            yield "/".join([*owners, name, number]), variables[number]
        if inner := _container(group[key]):
            yield from _keras_3_datasets(inner, (*owners, name))


def _natural(name: str) -> tuple[str, int]:
    """Sorts conv2d, conv2d_1, ... conv2d_10 as they were counted."""
    found = re.fullmatch(r"(.*?)_?(\d+)", name)
    return (found[1], int(found[2])) if found else (name, 0)
