"""Names to methods: one registry per role, filled by walking the role's folder, and the card each method fills in."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from goodnet.errors import UnknownName

T = TypeVar("T")


class Needs(Flag):
    """What the defender must hold for a method to run: the threat model, as a value."""

    NOTHING = 0
    MODEL = auto()
    GRADIENTS = auto()
    CLEAN = auto()
    CLEAN_LABELS = auto()
    TRAINING_SET = auto()
    SOURCES = auto()
    TRAINING = auto()
    TRIGGERS = auto()


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a method says about itself; the command line, the docs, the benchmark and the tests read it.

    Attributes:
        name: as typed on the command line; never reused.
        version: goes up whenever the method's answers change, so that old numbers stay comparable.
        needs: what the defender must hold; the method sees nothing else but what it ``uses``.
        uses: what it makes use of where the defender holds it, and can do without.
        source: the paper.
        summary: one line.
        assumes: what must be true for it to work ("patch-like trigger", "BatchNorm").
        quick: arguments that make it fast enough for contract tests.
        known_failures: contract or planted-world check -> why this method does not pass it.
    """

    name: str
    version: int
    needs: Needs
    source: str
    summary: str
    uses: Needs = Needs.NOTHING
    assumes: tuple[str, ...] = ()
    quick: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    known_failures: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Registry(Generic[T]):
    """The methods of one role by name; importing the modules of ``package`` fills it.

    Files whose name starts with an underscore are not walked.
    """

    def __init__(self, role: str, package: str):
        self.role = role
        self._package = package
        self._methods: dict[str, type[T]] = {}
        self._walked = False

    def register(self, card: Card) -> Callable[[type[T]], type[T]]:
        """Class decorator: attach ``card`` as the class attribute ``card`` and list the class under ``card.name``."""

        def decorate(cls: type[T]) -> type[T]:
            if card.name in self._methods:
                raise ValueError(f"{self.role} {card.name!r} is already {self._methods[card.name].__qualname__}")
            cls.card = card  # type: ignore[attr-defined]
            self._methods[card.name] = cls
            return cls

        return decorate

    def _walk(self) -> None:
        if not self._walked:
            self._walked = True
            package = importlib.import_module(self._package)
            for info in pkgutil.iter_modules(package.__path__):
                if not info.name.startswith("_"):
                    importlib.import_module(f"{self._package}.{info.name}")

    def __iter__(self) -> Iterator[type[T]]:
        self._walk()
        return iter(self._methods[name] for name in sorted(self._methods))

    def names(self) -> tuple[str, ...]:
        self._walk()
        return tuple(sorted(self._methods))

    def __getitem__(self, name: str) -> type[T]:
        self._walk()
        if name not in self._methods:
            raise UnknownName(unknown_name(self.role, name, self.names()))
        return self._methods[name]


def unknown_name(kind: str, name: str, known: tuple[str, ...]) -> str:
    """The message for a name that does not exist: the nearest one, then all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"no {kind} named {name!r}.{hint} Known: {', '.join(known)}."
