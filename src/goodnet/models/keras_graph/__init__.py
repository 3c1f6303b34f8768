"""Whole Keras models: their graph becomes torch layers, so that hooks, pruning and training work as on any network."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from goodnet.errors import UnreadableModel
from goodnet.models.formats import reading
from goodnet.models.keras_graph import activations, convolutions, dense, shaping
from goodnet.models.keras_graph.network import KerasNetwork, Owner
from goodnet.models.keras_graph.wiring import MODELS, layers_of

__all__ = ["KerasNetwork", "build", "fill", "scale_of"]

ImageShape = tuple[int, int, int]
_BUILDERS_ARE_IN = (activations, convolutions, dense, shaping)  # importing them fills the table


def build(path: Path, model: Mapping[str, Any], input_shape: ImageShape | None) -> tuple[KerasNetwork, ImageShape, str]:
    """The network of ``model_config`` without its arrays, (C, H, W) of its images, and the final activation left out.

    Args:
        path: for messages.
        model: ``{"class_name": ..., "config": ...}``.
        input_shape: (C, H, W); None for what the file says.

    Raises:
        UnreadableModel: a layer, setting or wiring that is not supported; it is named.
        UnsafeFile: a Lambda layer.
    """
    with reading(path, "a Keras model"), torch.device("meta"):
        if model.get("class_name") not in MODELS:
            raise UnreadableModel(f"{path}: a Keras model of class {model.get('class_name')!r} is not supported")
        channels_last = _channels_last(path, model)
        shape = input_shape or _input_shape(path, model, channels_last)
        network = KerasNetwork(model, shape, channels_last)
        if len(network.output_shape) != 1 or network.output_shape[0] < 2:
            raise UnreadableModel(
                f"{path}: the network gives {network.output_shape} numbers; a classifier gives 2 or more"
            )
        if not list(network.parameters()):
            raise UnreadableModel(f"{path}: no layer of the network has weights")
        return network, shape, network.drop_final_activation()


def fill(path: Path, network: KerasNetwork, arrays: Mapping[str, Tensor]) -> None:
    """Put the file's arrays, ``layer/.../parameter`` in Keras layout, into ``network``.

    Raises:
        UnreadableModel: arrays are missing or have other shapes than the graph says.
    """
    groups: dict[tuple[str, ...], list[Tensor]] = {}
    for name, array in arrays.items():
        groups.setdefault(tuple(name.split("/")[:-1]), []).append(array)
    by_name = all(_group_of(owner.path, groups) is not None for owner in network.owners)
    wanted, state = network.state_dict(), dict(network.constants)
    for owner in network.owners:
        found = _group_of(owner.path if by_name else owner.automatic, groups)
        if found is None or len(found) != len(owner.slots):
            has = 0 if found is None else len(found)
            raise UnreadableModel(
                f"{path}: Keras layer {'/'.join(owner.path)!r} has {has} arrays, {len(owner.slots)} wanted"
            )
        for slot, array in zip(owner.slots, found, strict=True):
            if slot.key:
                state[owner.prefix + slot.key] = _turned(path, owner, slot.turn, array, wanted[owner.prefix + slot.key])
    network.load_state_dict(state, assign=True)


def _turned(path: Path, owner: Owner, turn: Any, array: Tensor, wanted: Tensor) -> Tensor:
    with reading(path, f"arrays of Keras layer {'/'.join(owner.path)!r}"):
        turned: Tensor = turn(array)
        if turned.shape != wanted.shape:
            raise UnreadableModel(
                f"{path}: Keras layer {'/'.join(owner.path)!r} has an array of {tuple(array.shape)}, "
                f"its graph wants {tuple(wanted.shape)} in torch order"
            )
        return turned.contiguous()


def _group_of(path: tuple[str, ...], groups: Mapping[tuple[str, ...], list[Tensor]]) -> list[Tensor] | None:
    """The arrays of the layer ``path``; Keras 2 leaves out models in the middle, or adds a scope of its own."""
    if path in groups:
        return groups[path]
    likely = [key for key in groups if key[0] == path[0] and (len(path) == 1 or key[-1] == path[-1])]
    return groups[likely[0]] if len(likely) == 1 else None


def scale_of(network: KerasNetwork) -> float:
    """255 when the network itself brings numbers up to 255 down, else 1."""
    first = next((module for module in network.modules() if not list(module.children())), None)
    if isinstance(first, dense.Rescaling) and max(map(abs, first.scale)) < 0.1:
        return 255.0
    if isinstance(first, dense.Normalization) and float(first.mean.max()) > 10:
        return 255.0
    return 1.0


def _entries(model: Mapping[str, Any], nesting: int = 0) -> Iterator[Mapping[str, Any]]:
    """The entries of all layers, also those of nested models."""
    for entry in layers_of(model).values() if nesting < 32 else ():
        yield entry
        if entry["class_name"] in MODELS:
            yield from _entries(entry, nesting + 1)


def _channels_last(path: Path, model: Mapping[str, Any]) -> bool:
    found = {
        entry["config"].get("data_format")
        for entry in _entries(model)
        if isinstance(entry["config"], dict) and entry["class_name"] != "Flatten"
    } - {None}
    if len(found) > 1:
        raise UnreadableModel(f"{path}: some Keras layers have channels last and some first; that is not supported")
    return found != {"channels_first"}


def _input_shape(path: Path, model: Mapping[str, Any], channels_last: bool) -> ImageShape:
    """(C, H, W) from the input layer, or from wherever a sequential model notes it."""
    configs = [model["config"], *(entry["config"] for entry in _entries(model))]
    keys = ("batch_shape", "batch_input_shape", "build_input_shape")
    written = next(
        (config[key] for config in configs if isinstance(config, dict) for key in keys if config.get(key)), None
    )
    if (
        not isinstance(written, list)
        or len(written) != 4
        or not all(type(side) is int and side > 0 for side in written[1:])
    ):
        raise UnreadableModel(f"{path}: its input is {written}, not images of one size; pass input_shape=(C, H, W)")
    _, first, second, third = written
    return (third, first, second) if channels_last else (first, second, third)
