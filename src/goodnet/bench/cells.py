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
from goodnet.bench.kinds.cleansed import cleanse
from goodnet.bench.kinds.learned import learn
from goodnet.bench.kinds.published import measure_published
from goodnet.bench.kinds.reconstructed import reconstruct
from goodnet.bench.kinds.repaired import repair
from goodnet.bench.kinds.trained import train
from goodnet.bench.record import Cell
from goodnet.bench.rows import Named, Row
from goodnet.bench.store import Store
from goodnet.cleanse._base import cleansers
from goodnet.core.params import make, parameters_of
from goodnet.core.registry import Card, Needs
from goodnet.errors import UsageError
from goodnet.learn._base import learners
from goodnet.repair._base import repairers
from goodnet.training import Recipe

_DEFENSES: dict[str, tuple[Any, str]] = {  # key of a row → where its methods are, and what they are called
    "audit": (auditors, "auditor"),
    "repair": (repairers, "repairer"),
    "cleanse": (cleansers, "cleanser"),
    "learn": (learners, "learner"),
}
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
    described = {key: _described(getattr(row, key), *of) for key, of in _DEFENSES.items()}
    chosen = [(key, method) for key, method in described.items() if method is not None]
    if len(chosen) > 1:
        raise UsageError(
            f"a row of the suite has one defense, not {' and '.join(key for key, _ in chosen)} at once; make two rows"
        )
    match chosen:
        case [("audit", audited)]:
            judged: dict[str, JsonValue] = {"model": dict(model.parameters), "audit": audited}
            return Cell("audit", judged | {"held": row.held, "seed": row.seed}, needs=(model,))
        case [("repair", repaired)]:
            return _repaired(row, repaired, model)
        case [("cleanse", cleansed)]:
            return _cleansed(row, cleansed, model)
        case [("learn", learned)]:
            return _learned(row, learned, model)
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
        if cell.kind == "cleanse":
            return cleanse(cell, store, data)
        if cell.kind == "learn":
            return learn(cell, folder, store, data)
        if cell.kind == "published":
            return measure_published(cell.parameters, data)
    raise UsageError(f"no such kind of cell: {cell.kind}")


def _published(row: Row) -> Cell:
    if row.recipe or any(one != "none" for one in (row.audit, row.cleanse, row.learn)):
        raise UsageError("a published model in a row of the suite is measured or repaired; leave all else out")
    assert row.model is not None
    described = _described(row.attack, attacks, "attack")
    return Cell("published", {"data": _data(row), "model": row.model.model_dump(), "attack": described})


def _trained(row: Row) -> Cell:
    attack = _described(row.attack, attacks, "attack")
    trained: dict[str, JsonValue] = {
        "data": _data(row),
        "architecture": row.architecture,
        "attack": attack,
        "recipe": _plain(parameters_of(make(Recipe, row.recipe, "the recipe"))),
        "seed": row.seed,
    }
    owned = row.cleanse != "none" or row.learn != "none"
    if owned and attack is not None and Needs.TRAINING in attacks[str(attack["name"])].card.needs:
        trained["trainer"] = "victim"  # an attacker who ran the training would leave no set to look through
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


def _cleansed(row: Row, described: dict[str, JsonValue], model: Cell) -> Cell:
    """Names what the method is given beside the training set, so that what it does not ask for changes nothing."""
    asked = _asked(cleansers, described)
    parameters: dict[str, JsonValue] = {
        "model": dict(model.parameters),
        "cleanse": described,
        "held": row.held if Needs.CLEAN in asked else None,
        "labeled": row.labeled if Needs.CLEAN in asked else None,
        "sources": _sources(row, asked),
        "seed": row.seed,
    }
    return Cell("cleanse", parameters, needs=(model,))


def _learned(row: Row, described: dict[str, JsonValue], model: Cell) -> Cell:
    """All learners are measured on the test images that are not held, whether they use those or not."""
    chosen: Any = described["parameters"]
    parameters: dict[str, JsonValue] = {
        "model": dict(model.parameters),
        "learn": described,
        "cleanser": _described(chosen["cleanser"], cleansers, "cleanser") if "cleanser" in chosen else None,
        "held": row.held,
        "labeled": row.labeled,
        "sources": _sources(row, _asked(learners, described)),
        "seed": row.seed,
    }
    return Cell("learn", parameters, needs=(model,))


def _asked(registry: Any, described: dict[str, JsonValue]) -> Needs:
    card: Card = registry[str(described["name"])].card
    return card.needs | card.uses


def _sources(row: Row, asked: Needs) -> dict[str, JsonValue] | None:
    return row.sources.model_dump() if row.sources is not None and Needs.SOURCES in asked else None


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
