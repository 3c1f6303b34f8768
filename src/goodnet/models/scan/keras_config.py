"""What a Keras layer graph (JSON) would execute or import while Keras builds it."""

import re
from collections.abc import Iterator
from typing import Any

from goodnet.models.scan.base import Broken, Finding, parse_json

_VALUE_LIMIT = 2_000_000
_CODE_CLASSES = {
    "Lambda": "a Lambda layer, which holds Python bytecode",
    "__lambda__": "a pickled lambda, which is Python bytecode",
    "function": "a function that Keras imports by name",
    "TFOpLambda": "a layer that calls a TensorFlow function by name",
    "SlicingOpLambda": "a layer that calls a TensorFlow function by name",
    "ClassMethod": "a layer that calls a method by name",
    "InstanceMethod": "a layer that calls a method by name",
    "InstanceProperty": "a layer that calls a method by name",
    "TFSMLayer": "a layer that loads and runs a TensorFlow program from a path",
    "TorchModuleWrapper": "a layer that unpickles a torch module",
    "JaxLayer": "a layer that runs a program of the file's choice",
    "FlaxLayer": "a layer that runs a program of the file's choice",
    "__typespec__": "a TensorFlow type that Keras imports by name",
}
_CODE_KEYS = {"function", "function_type", "custom_objects"}
_HARMLESS_SPECIAL = {"__keras_tensor__", "__tuple__", "__slice__", "__ellipsis__", "__tensor__", "__numpy__"}
_KERAS_MODULE = re.compile(
    r"keras(\.(layers|models|initializers|regularizers|constraints|losses|metrics|optimizers(\.(schedules|legacy))?"
    r"|activations|dtype_policies|mixed_precision|(src|engine)(\.[A-Za-z0-9_]+)*))?"
)
_GADGETS = re.compile(r"\.(utils|saving|legacy\.saving)(\.|$)")


def scan_keras_config(text: bytes | str) -> list[Finding]:
    """One finding for each layer or object that would run or import something of the file's choice.

    Raises:
        Broken: not JSON, or absurdly deep or large.
    """
    findings: list[Finding] = []
    pending: list[tuple[str, Any]] = [("", parse_json(text))]
    for _ in range(_VALUE_LIMIT):
        if not pending:
            return findings
        place, value = pending.pop()
        if isinstance(value, dict):
            place = _layer(value) or place
            findings += [finding.inside(place) for finding in _judge(value)]
            pending.extend((place, part) for part in value.values())
        elif isinstance(value, list):
            pending.extend((place, part) for part in value)
    raise Broken(f"a layer graph of more than {_VALUE_LIMIT:,} values")


def _layer(value: dict[str, Any]) -> str:
    config = value.get("config")
    name = config.get("name") if "class_name" in value and isinstance(config, dict) else None
    return f"layer {name[:80]!r}" if isinstance(name, str) else ""


def _judge(value: dict[str, Any]) -> Iterator[Finding]:
    name, module, registered = value.get("class_name"), value.get("module"), value.get("registered_name")
    if not all(text is None or isinstance(text, str) for text in (name, module, registered)):
        raise Broken("a class_name, module or registered_name that is not a text")
    if name in _CODE_CLASSES:
        yield _executes(name, _CODE_CLASSES[name])
    elif name is not None and name.startswith("__") and name not in _HARMLESS_SPECIAL:
        yield _executes(name[:80], f"the special object {name[:80]}")
    if module is not None and not _is_keras(module):
        yield _executes(f"{module[:80]}.{name}"[:160], f"a custom object, for which Keras imports {module[:80]!r}")
    if registered is not None and registered != name:
        yield _executes(registered[:80], f"the custom object {registered[:80]!r}")
    for key in _CODE_KEYS & value.keys():
        if value[key] is not None:
            yield _executes(key, f"{key!r} in a layer's configuration: code, or the name of code")


def _is_keras(module: str) -> bool:
    return bool(_KERAS_MODULE.fullmatch(module)) and not _GADGETS.search(module)


def _executes(what: str, message: str) -> Finding:
    return Finding("executes", "", what, f"{message}: ask for a model built from standard layers, or for its weights")
