"""What people type, as values: durations and the hyper-parameters of methods. Imports nothing heavy."""

import dataclasses
import math
import re
import typing
from collections.abc import Sequence
from typing import Any

from goodnet.core.registry import unknown_name
from goodnet.errors import ParameterError, UnknownName

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def duration(written: str) -> float:
    """Seconds in "90", "90s", "2m", "1.5h".

    Raises:
        ParameterError: it is none of these, or not more than zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", written.strip(), re.ASCII)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds < math.inf:
        raise ParameterError(f"--budget must be a time above 0 such as 90, 90s, 2m or 1h, got {written!r}")
    return seconds


def settings(method: type[Any], written: Sequence[str], *, option: str = "--set", of: str = "") -> dict[str, Any]:
    """Hyper-parameters of the dataclass ``method`` from "name=value" words; the type is that of the default.

    Args:
        method: its fields made by ``core.params.param`` are what can be set.
        written: the words.
        option: where they stood, for messages.
        of: what they are parameters of, for messages; by default the name on the method's card.

    Raises:
        ParameterError: not of the form name=value, or the value is not of that type.
        UnknownName: the method has no such parameter.
    """
    fields = {field.name: field for field in dataclasses.fields(method) if "doc" in field.metadata}
    chosen = {}
    for word in written:
        name, equals, value = word.partition("=")
        if not equals:
            raise ParameterError(f"{option} takes name=value, got {word!r}")
        if name not in fields:
            raise UnknownName(unknown_name(f"parameter of {of or method.card.name}", name, tuple(fields)))
        chosen[name] = _converted(f"{option} {name}", value, _example(method, fields[name]))
    return chosen


def _example(method: type[Any], field: "dataclasses.Field[Any]") -> Any:
    """The default of a field; where that is None, a value of the type that the field may have instead."""
    if field.default is not None:
        return field.default
    kinds = typing.get_args(typing.get_type_hints(method)[field.name])
    return next(kind for kind in kinds if kind is not type(None))()


def _converted(name: str, value: str, like: Any) -> Any:
    """``value`` in the type of ``like``; tuples are written with commas."""
    try:
        match like:
            case bool():
                return {"true": True, "false": False}[value.lower()]
            case int() | float() | str():
                return type(like)(value)
            case tuple() if like:
                return tuple(_converted(name, part, like[0]) for part in value.split(",") if part)
    except (ValueError, KeyError):
        pass
    raise ParameterError(f"{name} must look like {written(like)}, got {value!r}")


def written(value: Any) -> str:
    """A default as one would type it."""
    return (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else str(value).lower()
        if value in (True, False)
        else str(value)
    )
