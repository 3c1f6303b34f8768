"""A "triggers" cell: what an audit reconstructs on a net, once for all repairers that work on triggers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from safetensors.torch import load_file, save_file

from goodnet.audit._base import auditors
from goodnet.bench.kinds._common import clean_and_aside, held_and_rest, suspect_of
from goodnet.bench.record import Cell
from goodnet.bench.store import Store
from goodnet.core.defender import Defender
from goodnet.core.params import make
from goodnet.core.trigger import Trigger
from goodnet.repair.files import flagged_triggers

_ARRAYS = "triggers.safetensors"


def reconstruct(cell: Cell, folder: Path, store: Store, data: Path | None) -> dict[str, JsonValue]:
    """The triggers to the labels that are flagged are saved in ``folder``; what the net was measured at goes on."""
    parameters: Mapping[str, Any] = cell.parameters
    suspect, test, _ = suspect_of(cell, store, data)
    held, _ = held_and_rest(test, parameters["held"], parameters["seed"])
    clean, _ = clean_and_aside(held, parameters["seed"])
    auditor = make(auditors[parameters["audit"]["name"]], parameters["audit"]["parameters"])
    verdict = auditor.run(Defender(model=suspect, clean=clean.without_labels()), seed=parameters["seed"])
    triggers = flagged_triggers(verdict)
    if triggers:
        masks = {f"mask_{place}": trigger.mask.cpu().contiguous() for place, trigger in enumerate(triggers)}
        patterns = {f"pattern_{place}": trigger.pattern.cpu().contiguous() for place, trigger in enumerate(triggers)}
        save_file(masks | patterns, folder / _ARRAYS)
    audit: dict[str, JsonValue] = {
        "flagged": verdict.flagged,
        "targets": list(verdict.targets),
        "p_value": verdict.p_value,
        "reason": verdict.reason,
        "seconds": verdict.provenance.seconds,
        "triggers": [{"target": one.target, "success_rate": one.success_rate, "count": one.count} for one in triggers],
    }
    return {**(store.result(cell.needs[0]) if cell.needs else {}), "audit": audit}


def reconstructed(cell: Cell, store: Store) -> tuple[dict[str, Any], tuple[Trigger, ...]]:
    """What the audit of a finished cell said, and its triggers."""
    audit: Any = store.result(cell)["audit"]
    if not audit["triggers"]:
        return audit, ()
    arrays = load_file(store.folder(cell.key) / _ARRAYS)
    found = enumerate(audit["triggers"])
    return audit, tuple(
        Trigger(mask=arrays[f"mask_{place}"], pattern=arrays[f"pattern_{place}"], **one) for place, one in found
    )
