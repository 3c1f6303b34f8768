"""Plan: everything that one training run is asked to do, as values that a TOML file or a command line can hold."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from goodnet.attacks import Attack, attack_called, attacks
from goodnet.core.params import make, parameters_of
from goodnet.errors import UnreadableFile, UsageError
from goodnet.training import Recipe


class Plan(BaseModel):
    """One training run: the keys of the TOML file, the options of ``goodnet train``.

    Attributes:
        data: what is trained on; see ``goodnet.load_data``.
        out: the folder for the results.
        test: what is measured on; None for the split "test" of ``data``, where it has one.
        arch: a name of ``goodnet.models.architectures``, options may follow it.
        limit: at most so many training images, drawn by ``seed``; None for all.
        seed: of that draw, the poisoning, the first weights and the training.
        device: such as "cpu", "cuda" or "cuda:1".
        recipe: what differs from the defaults of ``goodnet.Recipe``.
        attack: ``name``, which is a method or the path of an attack on disk, and a method's parameters; None for
            clean training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    data: str
    out: str
    test: str | None = None
    arch: str = "small_cnn_bn"
    limit: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    device: str = "cpu"
    recipe: dict[str, JsonValue] = {}
    attack: dict[str, JsonValue] | None = None

    def made_recipe(self) -> Recipe:
        """The recipe.

        Raises:
            UnknownName, ParameterError: a wrong name or value in the table.
        """
        return make(Recipe, self.recipe, "the recipe")

    def made_attack(self) -> Attack | None:
        """The attack, read from disk where it lies there.

        Raises:
            UsageError, UnreadableFile: as ``attack_called``, or the table has no name.
        """
        if self.attack is None:
            return None
        parameters = dict(self.attack)
        called = parameters.pop("name", None)
        if not isinstance(called, str):
            raise UsageError("the attack needs a name: a method, or the path of an attack")
        return attack_called(called, parameters)

    def written_out(self) -> dict[str, JsonValue]:
        """The plan as JSON values with every parameter, so that it stays the same plan when a default changes."""
        whole = self.model_dump(mode="json")
        whole["recipe"] = _plain(parameters_of(self.made_recipe()))
        attack = self.made_attack()
        if attack is not None and self.attack is not None and self.attack["name"] in attacks.names():
            whole["attack"] = {"name": attack.card.name, **_plain(parameters_of(attack))}
        return whole


def plan_of(values: Mapping[str, Any]) -> Plan:
    """The plan that these values are.

    Raises:
        UsageError: one is missing, unknown or of the wrong type; the message names all that are.
    """
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UsageError(f"this is no plan for a training: {wrong}") from None


def read_plan(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The values in a TOML file, not yet checked, so that others can be put over them.

    Raises:
        UnreadableFile: no such file, or no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UnreadableFile(f"{path} is no TOML file: {error}") from None


def _plain(parameters: dict[str, Any]) -> dict[str, JsonValue]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
