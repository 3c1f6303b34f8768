"""The inert values that a pickle builds while it is scanned."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from goodnet.models.scan.base import Broken

SCALARS = (str, bytes, int, float, bool, type(None))
NESTING_LIMIT = 64
EXPANDED_LIMIT = 20_000_000
"""How many values an object may have when everything that it shares is written out."""


@dataclass(frozen=True, eq=False)
class Global:
    """A name that the pickle imports: "module.name"."""

    name: str


@dataclass(frozen=True, eq=False)
class Instance:
    """Something that the pickle would build: ``of`` is the class or function, or "" if not even that is known."""

    of: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """What a pickle may say.

    Attributes:
        calls: name → its inert stand-in, which takes the tuple of arguments, gives the value and raises Broken.
        values: names that may be mentioned but not called.
        unread: names that torch admits but goodnet does not read.
        persistent: persistent id → the value behind it; raises Broken.
    """

    calls: Mapping[str, Callable[[tuple[Any, ...]], object]] = field(default_factory=dict)
    values: Collection[str] = ()
    unread: Collection[str] = ()
    persistent: Callable[[object], object] | None = None


def check_nesting(root: object) -> None:
    """Raise Broken if a value holds itself, is nested too deeply, or is absurdly large with all sharing written out."""
    # id → (depth, number of values inside), for lists, tuples and dictionaries
    measured: dict[int, tuple[int, int]] = {}
    open_ids: set[int] = set()
    pending: list[tuple[object, bool]] = [(root, False)]
    while pending:
        value, parts_are_measured = pending.pop()
        parts = None if id(value) in measured else _parts(value)
        if parts is None:
            continue
        if not parts_are_measured:
            if id(value) in open_ids:
                raise Broken("an object that holds itself")
            open_ids.add(id(value))
            pending.append((value, True))
            pending.extend((part, False) for part in parts)
            continue
        open_ids.discard(id(value))
        inner = [measured.get(id(part), (0, 1)) for part in parts]
        depth = 1 + max((depth for depth, _ in inner), default=0)
        count = 1 + sum(count for _, count in inner)
        if depth > NESTING_LIMIT:
            raise Broken(f"objects nested more than {NESTING_LIMIT} deep")
        if count > EXPANDED_LIMIT:
            raise Broken(f"shared objects that make more than {EXPANDED_LIMIT:,} values when written out")
        measured[id(value)] = depth, count


def _parts(value: object) -> list[object] | None:
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict):
        return [*value.values(), *getattr(value, "__dict__", {}).values()]
    return None
