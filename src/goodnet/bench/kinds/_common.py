"""What several kinds of cells need: the attack of a cell, and the images that the defender holds."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from goodnet.attacks import Attack, attacks
from goodnet.bench.datasets import DataSpec, below, open_data
from goodnet.bench.rows import Published
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.params import make
from goodnet.core.samples import Samples
from goodnet.errors import UsageError
from goodnet.models.load import load_model


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


def held_and_rest(test: Samples, held: int, seed: int) -> tuple[Samples, Samples]:
    """The ``held`` images that the defender has, drawn by ``seed``, and those that are measured on.

    Raises:
        UsageError: nothing would be left to measure on.
    """
    if held >= len(test):
        raise UsageError(f"the defender holds {held} of {len(test)} test images, so that none is left to measure on")
    shuffled = test.shuffled(torch.Generator().manual_seed(seed))
    return shuffled.pick(torch.arange(held)), shuffled.pick(torch.arange(held, len(test)))
