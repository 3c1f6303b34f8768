"""What a row tries, in a few words: names, with the parameters that differ from their defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from goodnet.bench.datasets import DataSpec
from goodnet.bench.rows import Row
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
    return method(parameters["audit"], registry) + _held(parameters)


def repair(parameters: Mapping[str, Any], registry: Registry[Any]) -> str:
    """The repairer of a repair cell, and what its defender has that others have not, or the other way around."""
    known = {"target": ", told the target", "original": ", given the attacker's own trigger"}
    unlabeled = "" if parameters["labeled"] or "architecture" not in parameters["model"] else " unlabeled"
    words = method(parameters["repair"], registry) + _held(parameters) + unlabeled
    return words + known.get(parameters["triggers"], "")


def cleanse(parameters: Mapping[str, Any], registry: Registry[Any]) -> str:
    """The cleanser of a cleanse cell, and what its defender has that is not usual."""
    return method(parameters["cleanse"], registry) + _held(parameters) + _unlabeled(parameters) + _sources(parameters)


def learn(parameters: Mapping[str, Any], registry: Registry[Any]) -> str:
    """The learner of a learn cell, likewise."""
    return method(parameters["learn"], registry) + _held(parameters) + _unlabeled(parameters) + _sources(parameters)


def _held(parameters: Mapping[str, Any]) -> str:
    usual = Row.model_fields["held"].default
    return "" if parameters["held"] in (None, usual) else f" held={parameters['held']}"


def _unlabeled(parameters: Mapping[str, Any]) -> str:
    return " unlabeled" if parameters["labeled"] is False else ""


def _sources(parameters: Mapping[str, Any]) -> str:
    spec = parameters["sources"]
    if spec is None:
        return ""
    alone = "" if spec["mixed"] else " and nothing else"
    return f", {spec['count']} sources, poison from {spec['poisoned']}{alone}"


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
