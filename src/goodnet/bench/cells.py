"""What benchmarks are made of: a row of a suite → its cells, and who computes each kind of cell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue, ValidationError

from goodnet.attacks import attacks
from goodnet.audit._base import auditors
from goodnet.bench.datasets import DataSpec
from goodnet.bench.kinds.audited import audit
from goodnet.bench.kinds.published import measure_published
from goodnet.bench.kinds.reconstructed import reconstruct
from goodnet.bench.kinds.repaired import repair
from goodnet.bench.kinds.trained import train
from goodnet.bench.record import Cell
from goodnet.bench.rows import Named, Row
from goodnet.bench.store import Store
from goodnet.core.params import make, parameters_of
from goodnet.core.registry import Needs
from goodnet.errors import UsageError
from goodnet.repair._base import repairers
from goodnet.training import Recipe

_AUDIT = "neural-cleanse"  # gives repairers their triggers, as in goodnet repair
FIXED_TARGET = ("all-to-one", "source-to-target")  # rules whose target is one label


def cell_of(values: Mapping[str, JsonValue]) -> Cell:
    """The last cell of a row; it names those that it needs.

    Raises:
        UsageError: the row has an unknown key, method or parameter, or keys that do not go together.
    """
    try:
        row = Row.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UsageError(f"a row of the suite is wrong: {wrong}") from None
    if bool(row.architecture) == bool(row.model):
        raise UsageError("a row of the suite needs either an architecture to train or a published model")
    model = _published(row) if row.model is not None else _trained(row)
    audited = _described(row.audit, auditors, "auditor")
    repaired = _described(row.repair, repairers, "repairer")
    if audited is not None and repaired is not None:
        raise UsageError("a row of the suite has an audit or a repair, not both; make two rows")
    if audited is not None:
        judged: dict[str, JsonValue] = {"model": dict(model.parameters), "audit": audited}
        return Cell("audit", judged | {"held": row.held, "seed": row.seed}, needs=(model,))
    if repaired is not None:
        return _repaired(row, repaired, model)
    return model


def perform(cell: Cell, folder: Path, store: Store, data: Path | None = None) -> dict[str, JsonValue]:
    """Compute one cell; ``data`` is the folder of the data sets."""
    with torch.random.fork_rng():
        if cell.kind == "model":
            return train(cell.parameters, folder, data)
        if cell.kind == "audit":
            return audit(cell, store, data)
        if cell.kind == "triggers":
            return reconstruct(cell, folder, store, data)
        if cell.kind == "repair":
            return repair(cell, folder, store, data)
        if cell.kind == "published":
            return measure_published(cell.parameters, data)
    raise UsageError(f"no such kind of cell: {cell.kind}")


def _published(row: Row) -> Cell:
    if row.audit != "none" or row.recipe:
        raise UsageError("a published model in a row of the suite is measured or repaired; leave audit and recipe out")
    assert row.model is not None
    described = _described(row.attack, attacks, "attack")
    return Cell("published", {"data": _data(row), "model": row.model.model_dump(), "attack": described})


def _trained(row: Row) -> Cell:
    trained: dict[str, JsonValue] = {
        "data": _data(row),
        "architecture": row.architecture,
        "attack": _described(row.attack, attacks, "attack"),
        "recipe": _plain(parameters_of(make(Recipe, row.recipe, "the recipe"))),
        "seed": row.seed,
    }
    return Cell("model", trained)


def _repaired(row: Row, described: dict[str, JsonValue], model: Cell) -> Cell:
    """Needs the net unless it is a published file, and what an audit reconstructs on it if the method works on that."""
    name = str(described["name"])
    asked = Needs.TRIGGERS in repairers[name].card.needs
    if row.triggers != "audit":
        attack: Any = model.parameters["attack"]
        if not asked:
            raise UsageError(f"{name} works without triggers; leave triggers out")
        if attack is None or attack["parameters"]["rule"] not in FIXED_TARGET:
            raise UsageError(f"triggers = {row.triggers!r} needs an attack with one target label")
    published = row.model is not None
    needs = () if published else (model,)
    audit = _described(_AUDIT, auditors, "auditor") if asked and row.triggers == "audit" else None
    if audit is not None:
        found: dict[str, JsonValue] = {"model": dict(model.parameters), "audit": audit}
        needs = (Cell("triggers", found | {"held": row.held, "seed": row.seed}, needs=needs),)
    parameters: dict[str, JsonValue] = {
        "model": dict(model.parameters),
        "repair": described,
        "held": row.held,
        "labeled": row.labeled and not published,  # what a published model is asked is not what its labels are
        "triggers": row.triggers if asked else None,
        "audit": audit,
        "seed": row.seed,
    }
    return Cell("repair", parameters, needs=needs)


def _data(row: Row) -> dict[str, JsonValue]:
    spec = DataSpec.model_validate({"name": row.data}) if isinstance(row.data, str) else row.data
    return spec.model_dump()


def _described(named: Named, registry: Any, role: str) -> dict[str, JsonValue] | None:
    """A method with its version and all of its parameters, so that a changed default is another cell."""
    name, chosen = (named, {}) if isinstance(named, str) else (named.get("name"), dict(named))
    if name == "none":
        return None
    if not isinstance(name, str):
        raise UsageError(f"the {role} of a row of the suite needs a name, got {named!r}")
    chosen.pop("name", None)
    method = make(registry[name], chosen, name)
    return {"name": name, "version": method.card.version, "parameters": _plain(parameters_of(method))}


def _plain(parameters: dict[str, Any]) -> dict[str, JsonValue]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
