"""An "audit" cell: an auditor judges a trained net with clean test images; its verdict is set beside the truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from goodnet.attacks import load_attack
from goodnet.audit._base import auditors
from goodnet.bench.datasets import DataSpec, open_data
from goodnet.bench.record import Cell
from goodnet.bench.store import Store
from goodnet.core.defender import Defender
from goodnet.core.params import make
from goodnet.models.load import load_model


def audit(cell: Cell, store: Store, data: Path | None) -> dict[str, JsonValue]:
    """The net is the one of the cell that this one needs."""
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
