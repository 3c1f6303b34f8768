"""What benchmarks are made of: a row of a suite → its cells, and how each kind of cell is computed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from goodnet.attacks import Attack, attacks, load_attack, save_attack
from goodnet.audit._base import auditors
from goodnet.bench.datasets import DataSpec, below, open_data
from goodnet.bench.record import Cell
from goodnet.bench.store import Store
from goodnet.core.classifier import predictions
from goodnet.core.defender import Defender
from goodnet.core.params import make, parameters_of
from goodnet.errors import UsageError
from goodnet.evaluation import measure
from goodnet.models.load import load_model
from goodnet.models.save import save_model
from goodnet.models.untrained import untrained
from goodnet.training import Recipe, fit

_NAMED = str | dict[str, JsonValue]  # "badnets", or {name = "badnets", size = 4}


class Published(BaseModel):
    """A model file that somebody else made, under the benchmark's data folder.

    Attributes:
        file: its path below that folder.
        arch, input_range: as in ``load_model``, for files that do not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    arch: str | None = None
    input_range: str | None = None


class Row(BaseModel):
    """One row of a suite.

    Attributes:
        data: what is trained and tested on.
        architecture: name of the network that is trained, or
        model: a published model file, which is measured with the trigger of ``attack`` as it is. Where its classes are
            not those of the data its own answers on clean images stand for labels.
        attack: name and parameters, or "none".
        recipe: how the net is trained.
        audit: name and parameters of an auditor that judges the net, or "none".
        held: clean images that the defender holds; they are drawn from the test images and never measured on.
        seed: of poisoning, initial weights, training and defense.
        label, published: words and figures to show beside the result; no part of the cell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str | DataSpec
    architecture: str = ""
    model: Published | None = None
    attack: _NAMED = "none"
    recipe: dict[str, JsonValue] = {}
    audit: _NAMED = "none"
    held: int = Field(500, ge=1)
    seed: int = Field(0, ge=0)
    label: str = ""
    published: dict[str, JsonValue] = {}


def cell_of(values: Mapping[str, JsonValue]) -> Cell:
    """The last cell of a row; it names those that it needs.

    Raises:
        UsageError: the row has an unknown key, method or parameter.
    """
    try:
        row = Row.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UsageError(f"a row of the suite is wrong: {wrong}") from None
    data = DataSpec.model_validate({"name": row.data}) if isinstance(row.data, str) else row.data
    if bool(row.architecture) == bool(row.model):
        raise UsageError("a row of the suite needs either an architecture to train or a published model")
    if row.model is not None:
        if row.audit != "none" or row.recipe:
            raise UsageError("a published model in a row of the suite is measured only; leave audit and recipe out")
        described = _described(row.attack, attacks, "attack")
        return Cell("published", {"data": data.model_dump(), "model": row.model.model_dump(), "attack": described})
    trained: dict[str, JsonValue] = {
        "data": data.model_dump(),
        "architecture": row.architecture,
        "attack": _described(row.attack, attacks, "attack"),
        "recipe": _plain(parameters_of(make(Recipe, row.recipe, "the recipe"))),
        "seed": row.seed,
    }
    model = Cell("model", trained)
    audit = _described(row.audit, auditors, "auditor")
    if audit is None:
        return model
    judged: dict[str, JsonValue] = {"model": trained, "audit": audit, "held": row.held, "seed": row.seed}
    return Cell("audit", judged, needs=(model,))


def perform(cell: Cell, folder: Path, store: Store, data: Path | None = None) -> dict[str, JsonValue]:
    """Compute one cell; ``data`` is the folder of the data sets."""
    with torch.random.fork_rng():
        if cell.kind == "model":
            return _train(cell.parameters, folder, data)
        if cell.kind == "audit":
            return _audit(cell, store, data)
        if cell.kind == "published":
            return _published(cell.parameters, data)
    raise UsageError(f"no such kind of cell: {cell.kind}")


def _train(parameters: Mapping[str, Any], folder: Path, data: Path | None) -> dict[str, JsonValue]:
    """Train a net, poisoned or clean, save it in ``folder``, and measure it on all test images."""
    train, test = open_data(DataSpec.model_validate(parameters["data"]), data)
    seed, recipe = parameters["seed"], make(Recipe, parameters["recipe"])
    net, attack = untrained(parameters["architecture"], train, seed), _attack(parameters["attack"], data)
    if attack is None:
        model = fit(net, train, recipe, seed=seed)
    else:
        made = attack.train(net, train, recipe, seed=seed)
        model, attack = made.model, made.attack
        save_attack(attack, folder / "attack")
    save_model(model, folder / "model")
    return {"train_images": len(train), "test_images": len(test), **measure(model, test, attack).as_json()}


def _published(parameters: Mapping[str, Any], data: Path | None) -> dict[str, JsonValue]:
    """A model file as it is, on images that are none of its training's."""
    published = Published.model_validate(parameters["model"])
    model = load_model(below(data, published.file), arch=published.arch, input_range=published.input_range)
    _, test = open_data(DataSpec.model_validate(parameters["data"]), data)
    test = test.fitted_to(model.input_shape)
    own = replace(test, labels=predictions(model, test.images).argmax(1))
    made = measure(model, own, _attack(parameters["attack"], data)).as_json()
    return {"test_images": len(test), **made, "clean_accuracy": None}


def _audit(cell: Cell, store: Store, data: Path | None) -> dict[str, JsonValue]:
    """Audit a trained net with clean test images, and compare the verdict with the truth."""
    trained = store.folder(cell.needs[0].key)
    parameters: Mapping[str, Any] = cell.parameters
    auditor = make(auditors[parameters["audit"]["name"]], parameters["audit"]["parameters"])
    _, test = open_data(DataSpec.model_validate(parameters["model"]["data"]), data)
    held = test.shuffled(torch.Generator().manual_seed(parameters["seed"]), parameters["held"]).without_labels()
    verdict = auditor.run(Defender(load_model(trained / "model"), clean=held), seed=parameters["seed"])
    attack = load_attack(trained / "attack") if parameters["model"]["attack"] is not None else None
    truth = [] if attack is None else sorted({part.target for part in attack.parts()})
    return {
        **store.result(cell.needs[0]),
        "flagged": verdict.flagged,
        "targets": list(verdict.targets),
        "true_targets": list(truth),
        "p_value": verdict.p_value,
        "score": verdict.score,
        "audit_seconds": verdict.provenance.seconds,
    }


def _attack(described: Mapping[str, Any] | None, data: Path | None) -> Attack | None:
    """The attack of a cell; pictures that it names are looked for below the benchmark's data folder."""
    if described is None:
        return None
    parameters = dict(described["parameters"])
    if parameters.get("image"):
        parameters["image"] = str(below(data, parameters["image"]))
    return make(attacks[described["name"]], parameters, described["name"])


def _described(named: _NAMED, registry: Any, role: str) -> dict[str, JsonValue] | None:
    """A method with its version and all of its parameters, so that a changed default is another cell."""
    name, chosen = (named, {}) if isinstance(named, str) else (named.get("name"), dict(named))
    if name == "none":
        return None
    if not isinstance(name, str):
        raise UsageError(f"an {role} in a row of the suite needs a name, got {named!r}")
    chosen.pop("name", None)
    method = make(registry[name], chosen, name)
    return {"name": name, "version": method.card.version, "parameters": _plain(parameters_of(method))}


def _plain(parameters: dict[str, Any]) -> dict[str, JsonValue]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
