"""Which Keras layer feeds which: ``model_config`` of Keras 2 and 3, sequential and functional, as a list of calls."""

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goodnet.errors import UnreadableModel

Key = tuple[str, int]  # a layer's name and which of its calls
MODELS = ("Functional", "Model", "Sequential")
_MAX_LAYERS = 10_000


@dataclass(frozen=True)
class Call:
    """One use of a layer.

    Attributes:
        layer: its name.
        inputs: whose results it takes.
        output: its own key.
        done: results that nothing needs after this call.
    """

    layer: str
    inputs: tuple[Key, ...]
    output: Key
    done: tuple[Key, ...]


@dataclass(frozen=True)
class Wiring:
    """A model's layers and the order in which they run.

    Attributes:
        layers: name → entry of ``model_config``.
        automatic: name → what Keras 3 calls the layer in its files, by class and count.
        calls: in an order in which every input is there.
        input, output: keys of the image and of the answer.
    """

    layers: Mapping[str, Mapping[str, Any]]
    automatic: Mapping[str, str]
    calls: tuple[Call, ...]
    input: Key
    output: Key


def wiring_of(model: Mapping[str, Any]) -> Wiring:
    """The wiring of one entry ``{"class_name": ..., "config": ...}`` that is a model.

    Raises:
        UnreadableModel: several inputs or outputs, cycles, or layers that are not there.
    """
    layers = layers_of(model)
    automatic = _automatic_names(layers)
    if model["class_name"] == "Sequential":
        names = [name for name, entry in layers.items() if entry["class_name"] != "InputLayer"]
        keys = [("", 0), *((name, 0) for name in names)]
        links = {(name, 0): [keys[place]] for place, name in enumerate(names)}
        return Wiring(layers, automatic, _ordered(links, keys[0], keys[-1]), keys[0], keys[-1])
    bases = _first_calls(layers)
    links = {}
    for name, entry in layers.items():
        for number, node in enumerate(entry.get("inbound_nodes") or ()):
            links[name, number] = [_based(key, bases) for key in _sources(name, node)]
    start, end = (_based(_only(model["config"], ends), bases) for ends in ("input_layers", "output_layers"))
    return Wiring(layers, automatic, _ordered(links, start, end), start, end)


def layers_of(model: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of a model's layers by name, in the order of the file."""
    config = model["config"]
    entries = config if isinstance(config, list) else config["layers"]  # the first Keras kept a bare list
    if len(entries) > _MAX_LAYERS:
        raise UnreadableModel(f"the Keras model has {len(entries):,} layers; that is no network")
    named = {str(entry.get("name") or entry["config"]["name"]): entry for entry in entries}
    if len(named) != len(entries):
        raise UnreadableModel("two layers of the Keras model have the same name")
    return named


def _automatic_names(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Class name in snake case, counted: conv2d, conv2d_1, ..."""
    seen: Counter[str] = Counter()
    found = {}
    for name, entry in layers.items():
        words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", str(entry["class_name"])))
        plain = re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()
        found[name] = f"{plain}_{seen[plain]}" if seen[plain] else plain
        seen[plain] += 1
    return found


def _sources(name: str, node: Any) -> list[Key]:
    """The results that one call takes."""
    if isinstance(node, Mapping):  # Keras 3
        _check_arguments(name, node.get("kwargs") or {})
        return list(_tensors(name, node.get("args") or []))
    parts = [node] if node and isinstance(node[0], str) else node
    for part in parts:
        _check_arguments(name, part[3] if len(part) > 3 else {})
    return [_key(name, part) for part in parts]


def _tensors(name: str, arguments: Any) -> Iterator[Key]:
    for argument in arguments:
        if isinstance(argument, list | tuple):
            yield from _tensors(name, argument)
        elif isinstance(argument, Mapping) and argument.get("class_name") == "__keras_tensor__":
            yield _key(name, argument["config"]["keras_history"])
        else:
            raise UnreadableModel(f"Keras layer {name!r} is called with {argument!r}, not with the result of a layer")


def _check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """What a layer is called with beside its input must change nothing."""
    for key, value in arguments.items():
        if not (key in ("training", "mask") and value in (None, False)):
            raise UnreadableModel(f"Keras layer {name!r} is called with {key}={value!r}, which is not supported")


def _key(name: str, written: Sequence[Any]) -> Key:
    layer, call, number = written[:3]
    if number != 0:
        raise UnreadableModel(
            f"Keras layer {name!r} takes result {number} of {layer!r}; only layers with one are supported"
        )
    return str(layer), int(call)


def _first_calls(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Where nested models start to count their calls: Keras 2 counts their own making as one."""
    bases: dict[str, int] = {}
    for name, entry in layers.items():
        for node in entry.get("inbound_nodes") or ():
            for source, call in _sources(name, node):
                if layers.get(source, {}).get("class_name") in MODELS:
                    bases[source] = min(call, bases.get(source, call))
    return bases


def _based(key: Key, bases: Mapping[str, int]) -> Key:
    return key[0], key[1] - bases.get(key[0], 0)


def _only(config: Mapping[str, Any], ends: str) -> Key:
    """The single input or output of a model; a list of one in Keras 2, bare in Keras 3."""
    written = config[ends]
    if isinstance(written, Sequence) and len(written) == 3 and isinstance(written[0], str):
        written = [written]
    if not isinstance(written, list) or len(written) != 1:
        raise UnreadableModel(
            f"the Keras model has several {ends.replace('_', ' ')}; only one image in, one answer out"
        )
    return _key("", written[0])


def _ordered(links: Mapping[Key, list[Key]], start: Key, end: Key) -> tuple[Call, ...]:
    """The calls that ``end`` needs, every one after its inputs."""
    needed, pending = {end}, [end]
    while pending:
        key = pending.pop()
        if key not in links and key != start:
            raise UnreadableModel(f"the Keras model needs the result of {key[0]!r}, which has no input")
        for source in links.get(key, ()) if key != start else ():
            if source not in needed:
                needed.add(source)
                pending.append(source)
    waiting = {key: len(set(links[key])) for key in links if key in needed and key != start}
    users: dict[Key, list[Key]] = {}
    for key in waiting:
        for source in dict.fromkeys(links[key]):
            users.setdefault(source, []).append(key)
    order: list[Key] = []
    ready = deque([start])
    while ready:
        for user in users.get(ready.popleft(), ()):
            waiting[user] -= 1
            if waiting[user] == 0:
                order.append(user)
                ready.append(user)
    if len(order) != len(waiting):
        raise UnreadableModel("the layers of the Keras model run in a circle")
    last_use = {source: key for key in order for source in links[key]}
    return tuple(
        Call(
            key[0],
            tuple(links[key]),
            key,
            tuple(source for source in dict.fromkeys(links[key]) if last_use[source] == key),
        )
        for key in order
    )
