"""A cell, which is one thing to compute, and the record of what came of it, which is one row."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from goodnet.errors import UsageError

SCHEMA = 1


@dataclass(frozen=True)
class Cell:
    """A pure function of JSON parameters, named by ``key``. Cells with the same key are the same cell.

    Attributes:
        kind: what is computed, such as "model" or "audit".
        parameters: everything that the result depends on, seeds and versions of methods included.
        needs: cells that must be done before this one; ``parameters`` must determine them.
        key: the first 32 hex digits of the sha256 of schema version, kind and parameters. To JSON, and so to the key,
            1 and 1.0 are different.

    Raises:
        UsageError: the parameters are not JSON; nan and infinities are not.
    """

    kind: str = field(compare=False)
    parameters: Mapping[str, JsonValue] = field(compare=False)
    needs: tuple["Cell", ...] = field(default=(), compare=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        try:
            own = json.loads(canonical(dict(self.parameters)))
            key = hashlib.sha256(canonical([SCHEMA, self.kind, own]).encode()).hexdigest()[:32]
        except (TypeError, ValueError) as error:
            raise UsageError(f"the parameters of a {self.kind!r} cell must be JSON: {error}") from error
        object.__setattr__(self, "parameters", own)
        object.__setattr__(self, "key", key)

    def __str__(self) -> str:
        return f"{self.kind} {self.key[:8]}"


def canonical(value: object) -> str:
    """``value`` as JSON text that is the same for the same value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plain(result: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A result as JSON gives it back; nan and infinities become None.

    Raises:
        TypeError, ValueError: it is not JSON.
    """
    values: dict[str, JsonValue] = json.loads(json.dumps(dict(result)), parse_constant=lambda _: None)
    return values


class Record(BaseModel):
    """One row of the benchmark: what ``result.json`` holds. A failure is a row too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = Field(1, alias="schema", description="version of this format")
    kind: str = Field(description="what was computed")
    parameters: dict[str, JsonValue] = Field(description="what the result depends on")
    key: str = Field(description="name of the cell, from the three above")
    status: Literal["done", "failed"]
    result: dict[str, JsonValue] | None = Field(description="what was computed; null when failed")
    error: str | None = Field(description='why it failed, "Type: sentence"; null when done')
    seconds: float = Field(ge=0, description="wall time")
    peak_memory_bytes: int = Field(
        ge=0, description="most memory that the process held meanwhile, libraries included; 0 if it never began"
    )
    versions: dict[str, str] = Field(description="versions of goodnet, torch and python")
    git: str | None = Field(description="commit of goodnet's working copy, with -dirty if it was changed; else null")
    finished: str = Field(description="when, in UTC, as ISO 8601")

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if Cell(self.kind, self.parameters).key != self.key:
            raise ValueError("kind and parameters do not belong to the key")
        if (self.status == "done", self.status == "failed") != (self.result is not None, self.error is not None):
            raise ValueError("a done cell has a result, a failed one an error")
        return self
