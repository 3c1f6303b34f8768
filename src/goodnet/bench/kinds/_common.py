"""What several kinds of cells need: the attack of a cell, and the images that the defender holds."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from goodnet.attacks import Attack, attacks, load_attack
from goodnet.bench.datasets import DataSpec, below, open_data
from goodnet.bench.record import Cell
from goodnet.bench.rows import Published
from goodnet.bench.store import Store
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.params import make
from goodnet.core.samples import Samples
from goodnet.errors import UsageError
from goodnet.models.load import load_model
from goodnet.repair.files import set_aside

_ASIDE = 0.25  # of the images that the defender holds: what only the proof sees, as in repair_file


def attack_of(described: Mapping[str, Any] | None, data: Path | None) -> Attack | None:
    """The attack of a cell; pictures that it names are looked for below the benchmark's data folder."""
    if described is None:
        return None
    parameters = dict(described["parameters"])
    if parameters.get("image"):
        parameters["image"] = str(below(data, parameters["image"]))
    return make(attacks[described["name"]], parameters, described["name"])


def published_model(parameters: Mapping[str, Any], data: Path | None) -> tuple[Classifier, Samples]:
    """A published model, and test images on which its own answers stand for labels."""
    published = Published.model_validate(parameters["model"])
    model = load_model(below(data, published.file), arch=published.arch, input_range=published.input_range)
    _, test = open_data(DataSpec.model_validate(parameters["data"]), data)
    test = test.fitted_to(model.input_shape)
    return model, replace(test, labels=predictions(model, test.images).argmax(1))


def suspect_of(cell: Cell, store: Store, data: Path | None) -> tuple[Classifier, Samples, Attack | None]:
    """The net that a cell works on, labeled test images, and the key to its backdoor.

    A trained net is that of the first of the cells that are needed, a published one is read from its file.
    """
    parameters: Mapping[str, Any] = cell.parameters["model"]  # type: ignore[assignment]
    if "architecture" not in parameters:
        return *published_model(parameters, data), attack_of(parameters["attack"], data)
    while cell.needs:
        cell = cell.needs[0]
    trained = store.folder(cell.key)
    _, test = open_data(DataSpec.model_validate(parameters["data"]), data)
    attack = None if parameters["attack"] is None else load_attack(trained / "attack")
    return load_model(trained / "model"), test, attack


def held_and_rest(test: Samples, held: int, seed: int) -> tuple[Samples, Samples]:
    """The ``held`` images that the defender has, drawn by ``seed``, and those that are measured on.

    Raises:
        UsageError: nothing would be left to measure on.
    """
    if held >= len(test):
        raise UsageError(f"the defender holds {held} of {len(test)} test images, so that none is left to measure on")
    shuffled = test.shuffled(torch.Generator().manual_seed(seed))
    return shuffled.pick(torch.arange(held)), shuffled.pick(torch.arange(held, len(test)))


def clean_and_aside(held: Samples, seed: int) -> tuple[Samples, Samples]:
    """What audit and repairer are given of the images held, and what only the proof sees."""
    return set_aside(held, _ASIDE, seed)
