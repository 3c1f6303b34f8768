"""The settings of one Keras layer, as a stranger wrote them: every value is checked when it is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from goodnet.errors import UnreadableModel

_LARGEST = 1 << 24  # larger than any number of filters, side or stride


@dataclass(frozen=True)
class LayerConfig:
    """One layer of ``model_config``.

    Attributes:
        kind: Keras class name.
        name: the layer's name.
        values: its ``config``.
    """

    kind: str
    name: str
    values: Mapping[str, Any]

    def refuse(self, reason: str) -> UnreadableModel:
        """The error for this layer, to be raised by the caller."""
        return UnreadableModel(f"Keras layer {self.name!r} ({self.kind}): {reason}")

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        return self._checked(key, self.values.get(key, default), 1)

    def pair(self, key: str, default: int | None = None, at_least: int = 1) -> tuple[int, int]:
        """(vertical, horizontal) whole numbers; one number stands for both."""
        value = self.values.get(key, default)
        if isinstance(value, list | tuple) and len(value) == 2:
            first, second = value
            return self._checked(key, first, at_least), self._checked(key, second, at_least)
        number = self._checked(key, value, at_least)
        return number, number

    def border(self, key: str) -> tuple[int, int, int, int]:
        """(left, right, top, bottom), as torch pads, from any of the three ways in which Keras writes it."""
        value = self.values.get(key)
        if (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(isinstance(part, list | tuple) for part in value)
        ):
            (top, bottom), (left, right) = value
        else:
            top, left = self.pair(key, at_least=0)
            bottom, right = top, left
        numbers = [self._checked(key, number, 0) for number in (left, right, top, bottom)]
        return numbers[0], numbers[1], numbers[2], numbers[3]

    def number(self, key: str, default: float) -> float:
        """A finite number; Keras may wrap one in a record of numpy."""
        value = self.values.get(key, default)
        if isinstance(value, Mapping):
            value = value.get("config", {}).get("value", value.get("value"))
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refuse(f"{key} must be a number, got {value!r}")
        return float(value)

    def numbers(self, key: str, default: float) -> tuple[float, ...]:
        """Finite numbers from a number or nested lists of numbers."""
        pending, found = [self.values.get(key, default)], list[float]()
        while pending:
            value = pending.pop()
            if isinstance(value, list | tuple):
                pending += reversed(value)
            elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise self.refuse(f"{key} must be numbers, got {value!r}")
            else:
                found.append(float(value))
        return tuple(found)

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.values.get(key, default))

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of ``allowed``."""
        value = self.values.get(key, default)
        if value not in allowed:
            raise self.refuse(f"{key}={value!r} is not supported; supported: {', '.join(allowed)}")
        return str(value)

    def _checked(self, key: str, value: Any, at_least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= _LARGEST:
            raise self.refuse(f"{key} must be a whole number of at least {at_least}, got {value!r}")
        return value
