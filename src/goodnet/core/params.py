"""Ranges of hyper-parameters, written once beside the field that they bound."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from goodnet.core.registry import unknown_name
from goodnet.errors import ParameterError, UnknownName

T = TypeVar("T")


def param(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
    doc: str,
) -> Any:
    """A dataclass field in [low, high] (None: no bound) or among ``choices``; ``doc`` feeds the help."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "choices": choices, "doc": doc})


def parameters_of(method: Any) -> dict[str, Any]:
    """The hyper-parameters of a method by name: with them, and its name, it can be made again."""
    return {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if "doc" in field.metadata}


def make(method: type[T], parameters: Mapping[str, Any], role: str = "method") -> T:
    """The ``method`` with these hyper-parameters, as JSON and TOML have them (lists for tuples, 1 for 1.0).

    Raises:
        UnknownName: this ``role`` has no such parameter.
        ParameterError: a value is out of its range.
    """
    assert dataclasses.is_dataclass(method)
    fields = {field.name: field for field in dataclasses.fields(method) if "doc" in field.metadata}
    for name in parameters:
        if name not in fields:
            raise UnknownName(unknown_name(f"parameter of {role}", name, tuple(fields)))
    return method(**{name: _as(value, fields[name].default) for name, value in parameters.items()})


def _as(value: Any, like: Any) -> Any:
    """``value`` as a tuple or float where the default is one."""
    if isinstance(value, list | tuple):
        return tuple(_as(one, like[0] if isinstance(like, tuple) and like else None) for one in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and isinstance(like, float) else value


def check_ranges(method: Any) -> None:
    """Raise ParameterError, naming the field, if any field of the dataclass ``method`` is out of its range.

    A tuple must hold something, and each of its values must be in range. Where the default is a whole number, so must
    the value be.
    """
    for field in dataclasses.fields(method):
        value, limits = getattr(method, field.name), field.metadata
        name = f"{type(method).__name__}.{field.name}"
        if value == () and field.default != ():
            raise ParameterError(f"{name} must hold at least one value")
        for one in value if isinstance(value, tuple) else (value,):
            _check(name, one, limits, whole=_is_whole(field.default))


def _check(name: str, value: Any, limits: Mapping[str, Any], whole: bool) -> None:
    choices = limits.get("choices", ())
    if choices and value not in choices:
        raise ParameterError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    low, high = limits.get("low"), limits.get("high")
    if (low is None and high is None and not whole) or value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ParameterError(f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
    # written so that NaN, which compares false with everything, is refused as well
    if not ((low is None or value >= low) and (high is None or value <= high)):
        raise ParameterError(f"{name} must be in {_interval(low, high)}, got {value!r}")


def _is_whole(default: Any) -> bool:
    """Whether a field whose default is this takes whole numbers."""
    first = default[0] if isinstance(default, tuple) and default else default
    return isinstance(first, int) and not isinstance(first, bool)


def _interval(low: float | None, high: float | None) -> str:
    left = "(-inf" if low is None else f"[{low:g}"
    right = "inf)" if high is None else f"{high:g}]"
    return f"{left}, {right}"
