"""Suites: a TOML file that says which combinations a benchmark is made of."""

import importlib.resources
import itertools
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from goodnet.bench.record import canonical
from goodnet.core.registry import unknown_name
from goodnet.errors import UnknownName, UnreadableFile

_WHOLE = "full"  # the size that every suite has: its defaults as they are


def _finite(value: JsonValue) -> JsonValue:
    canonical(value)
    return value


Value = Annotated[JsonValue, AfterValidator(_finite)]
Row = dict[str, Value]


class Suite(BaseModel):
    """A benchmark as a grid.

    Attributes:
        name, summary: for people.
        sizes: by name, other values for some of ``defaults``: "small" for minutes, and so on.
        defaults: what every row has unless its grid says otherwise.
        grid: each a table of lists; every combination of their values is a row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(min_length=1)]
    summary: str
    sizes: Mapping[str, Row] = {}
    defaults: Row = {}
    grid: Annotated[list[dict[str, Annotated[list[Value], Field(min_length=1)]]], Field(min_length=1)]

    def rows(self, size: str | None = None) -> list[Row]:
        """The rows in the order of the file, the last list of a grid varying fastest, each row once.

        Args:
            size: one of ``sizes``; None, and "full" unless ``sizes`` says otherwise, for the defaults as they are. What
                a grid lists, no size changes.

        Raises:
            UnknownName: no such size.
        """
        size = size or _WHOLE
        if size != _WHOLE and size not in self.sizes:
            raise UnknownName(unknown_name("size", size, tuple(sorted({_WHOLE, *self.sizes}))))
        base = self.defaults | self.sizes.get(size, {})
        rows: dict[str, Row] = {}
        for grid in self.grid:
            for values in itertools.product(*grid.values()):
                row = base | dict(zip(grid, values, strict=True))
                rows.setdefault(canonical(row), row)
        return list(rows.values())


def shipped_suites() -> tuple[str, ...]:
    """Names of the suites that ship with goodnet."""
    files = importlib.resources.files("goodnet") / "suites"
    return tuple(sorted(file.name.removesuffix(".toml") for file in files.iterdir() if file.name.endswith(".toml")))


def open_suite(name: str) -> Suite:
    """A suite that ships with goodnet, or a file: whatever ends in ``.toml`` or has a folder in it is a path.

    Raises:
        UnknownName: no suite of that name ships.
        UnreadableFile: see ``load_suite``.
    """
    if name.endswith(".toml") or Path(name).name != name:
        return load_suite(name)
    if name not in shipped_suites():
        raise UnknownName(f"{unknown_name('suite', name, shipped_suites())} Another one is given as a path, mine.toml.")
    with importlib.resources.as_file(importlib.resources.files("goodnet") / "suites" / f"{name}.toml") as path:
        return load_suite(path)


def load_suite(path: str | os.PathLike[str]) -> Suite:
    """Read a suite from a TOML file.

    Raises:
        UnreadableFile: no such file, no TOML, a key that suites do not have, a value of the wrong type; the message
            names the file and the key.
    """
    path = Path(path)
    try:
        suite = Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise UnreadableFile(f"{path}: {_sentence(error)}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise UnreadableFile(f"{path} is no TOML: {error}") from error
    for size, changes in suite.sizes.items():
        for key in changes.keys() - suite.defaults.keys():
            known = ", ".join(suite.defaults)
            raise UnreadableFile(f"{path}: sizes.{size}.{key} changes nothing; [defaults] has {known}")
    return suite


def _sentence(error: ValidationError) -> str:
    known = ", ".join(Suite.model_fields)
    wrong = []
    for one in error.errors():
        message = f"no such key; a suite has {known}" if one["type"] == "extra_forbidden" else one["msg"]
        wrong.append(f"{'.'.join(map(str, one['loc']))}: {message[0].lower()}{message[1:]}")
    return "; ".join(wrong)
