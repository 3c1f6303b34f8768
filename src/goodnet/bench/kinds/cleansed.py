"""A "cleanse" cell: a cleanser looks through the training set of a net; its answer is set beside the truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from goodnet.bench.kinds._training_set import training_set_of, with_sources
from goodnet.bench.record import Cell
from goodnet.bench.store import Store
from goodnet.cleanse._base import cleansers
from goodnet.core.defender import Defender
from goodnet.core.params import make
from goodnet.core.samples import Samples
from goodnet.evaluation import measure_cleansing
from goodnet.models.load import load_model


def cleanse(cell: Cell, store: Store, data: Path | None) -> dict[str, JsonValue]:
    """The net is the one of the cell that this one needs, the set what it was trained on."""
    parameters: Mapping[str, Any] = cell.parameters
    owned, seed = training_set_of(parameters["model"], data), parameters["seed"]
    cleanser = make(cleansers[parameters["cleanse"]["name"]], parameters["cleanse"]["parameters"])
    defender = Defender(
        model=load_model(store.folder(cell.needs[0].key) / "model"),
        clean=None if parameters["held"] is None else _held(owned.test, parameters),
        training_set=with_sources(owned, parameters["sources"], seed),
    )
    cleansed = cleanser.run(defender, seed=seed)
    return {
        **store.result(cell.needs[0]),
        "cleanse": {
            **measure_cleansing(cleansed, owned.poisoned, owned.covers).as_json(),
            "rule": cleansed.rule,
            "removed_per_label": {str(one.label): one.removed for one in cleansed.per_class if one.removed},
            "seconds": cleansed.provenance.seconds,
        },
    }


def _held(test: Samples, parameters: Mapping[str, Any]) -> Samples:
    """Test images that the defender knows to be clean."""
    held = test.shuffled(torch.Generator().manual_seed(parameters["seed"]), parameters["held"])
    return held if parameters["labeled"] else held.without_labels()
