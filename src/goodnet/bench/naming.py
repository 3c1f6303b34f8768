"""What a row tries, in a few words: names, with the parameters that differ from their defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from goodnet.bench.cells import Row
from goodnet.bench.datasets import DataSpec
from goodnet.core.registry import Registry
from goodnet.training import Recipe

_NONE = "none"


def data(spec: Mapping[str, Any]) -> str:
    """A ``DataSpec``: "gtsrb train=12000"."""
    defaults = {name: field.default for name, field in DataSpec.model_fields.items() if name != "name"}
    return _named(spec["name"], spec, defaults)


def recipe(parameters: Mapping[str, Any] | None) -> str:
    """A ``Recipe``: "epochs=15 batch_size=32"; "none" where nothing is trained."""
    return _NONE if parameters is None else _named("", parameters, _defaults(Recipe)) or "defaults"


def method(described: Mapping[str, Any] | None, registry: Registry[Any]) -> str:
    """A method of a cell: "badnets target=3"; "none" for none."""
    if described is None:
        return _NONE
    return _named(described["name"], described["parameters"], _defaults(registry[described["name"]]))


def audit(parameters: Mapping[str, Any], registry: Registry[Any]) -> str:
    """The auditor of an audit cell, and how many images it holds where that is not the usual number."""
    words, usual = method(parameters["audit"], registry), Row.model_fields["held"].default
    return words if parameters["held"] == usual else f"{words} held={parameters['held']}"


def _defaults(method: type[Any]) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(method) if "doc" in field.metadata}


def _named(name: str, parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    changed = [
        f"{key}={_written(parameters[key])}"
        for key, default in defaults.items()
        if key in parameters and _plain(parameters[key]) != _plain(default)
    ]
    return " ".join([name, *changed] if name else changed)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _written(value: Any) -> str:
    """As one would type it after --set."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ",".join(map(_written, value))
    return str(value)
