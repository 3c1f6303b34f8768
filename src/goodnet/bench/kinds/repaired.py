"""A "repair" cell: a net is repaired with clean test images, and measured before and after on the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from goodnet.attacks import Attack
from goodnet.bench.kinds._common import clean_and_aside, held_and_rest, suspect_of
from goodnet.bench.kinds._original import original_triggers
from goodnet.bench.kinds.reconstructed import reconstructed
from goodnet.bench.record import Cell
from goodnet.bench.store import Store
from goodnet.core.classifier import Classifier
from goodnet.core.params import make
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable
from goodnet.evaluation import evaluate, pruning_rates
from goodnet.models.save import save_model
from goodnet.repair._base import Repairer, repairers
from goodnet.repair.files import FileRepair, repair_model
from goodnet.repair.fine_pruning import FinePruning
from goodnet.repair.pruning import Pruning

_ALONG = 1000  # images that a pruning curve is measured on, clean and stamped


def repair(cell: Cell, folder: Path, store: Store, data: Path | None) -> dict[str, JsonValue]:
    """What the repairer made is measured, and saved in ``folder``; whether the proof accepts it stands beside.

    A method that cannot work on this network, or has no trigger to work on, leaves the old model.
    """
    parameters: Mapping[str, Any] = cell.parameters
    suspect, test, attack = suspect_of(cell, store, data)
    repairer = make(repairers[parameters["repair"]["name"]], parameters["repair"]["parameters"])
    held, rest = held_and_rest(test, parameters["held"], parameters["seed"])
    if not parameters["labeled"]:
        held = held.without_labels()
    clean, aside = clean_and_aside(held, parameters["seed"])
    audit, found = reconstructed(cell.needs[0], store) if parameters["triggers"] == "audit" else (None, ())
    made: FileRepair | str
    if audit is not None and not found:
        made = f"the audit names no label to repair ({audit['reason']})"
    else:
        made = _repaired(suspect, repairer, clean, aside, attack, found, parameters)
    told = _told(made)
    after = made.repaired.model if isinstance(made, FileRepair) and made.repaired is not None else suspect
    if after is not suspect:
        save_model(after, folder / "model")
    evaluation = evaluate(suspect, after, rest, attack).as_json()
    own_answers = "architecture" not in parameters["model"]
    return {
        "test_images": len(rest),
        **evaluation["before"],
        **({"clean_accuracy": None} if own_answers else {}),
        "repair": {
            **told,
            "audit": audit,
            "own_answers": own_answers,
            "evaluation": evaluation,
            "curve": None if after is suspect else _curve(suspect, repairer, clean, rest, attack),
        },
    }


def _repaired(
    suspect: Classifier,
    repairer: Repairer,
    clean: Samples,
    aside: Samples,
    attack: Attack | None,
    found: tuple[Trigger, ...],
    parameters: Mapping[str, Any],
) -> FileRepair | str:
    """As ``goodnet repair``, or why it cannot be; truth is handed over only where the row says so."""
    known = parameters["triggers"]
    parts = attack.parts() if attack is not None and known in ("target", "original") else ()
    try:
        return repair_model(
            suspect,
            repairer,
            clean=clean,
            aside=aside,
            targets=tuple(sorted({part.target for part in parts})) if known == "target" else (),
            triggers=original_triggers(parts, suspect, clean) if known == "original" else found,
            seed=parameters["seed"],
        )
    except NotApplicable as error:
        return str(error)


def _told(made: FileRepair | str) -> dict[str, Any]:
    """What the defender knows, as JSON values."""
    reason, whole = (made, None) if isinstance(made, str) else (made.reason, made)
    repaired, proof = (None, None) if whole is None else (whole.repaired, whole.proof)
    return {
        "made": repaired is not None,
        "accepted": whole is not None and whole.accepted,
        "reason": reason,
        "proof": None if proof is None else proof.as_json(),
        "notes": {} if repaired is None else dict(repaired.notes),
        "evidence": {} if repaired is None else dict(repaired.evidence),
        "seconds": 0.0 if repaired is None else repaired.provenance.seconds,
    }


def _curve(
    suspect: Classifier, repairer: Repairer, clean: Samples, rest: Samples, attack: Attack | None
) -> list[dict[str, Any]] | None:
    """Accuracy and true attack success against channels, where the method prunes in one fixed order."""
    if not isinstance(repairer, Pruning) or (isinstance(repairer, FinePruning) and repairer.stepwise):
        return None
    rates = pruning_rates(suspect, repairer, ranked_on=clean, test=rest, attack=attack, most=_ALONG)
    return [
        {
            "channels": count,
            "clean_accuracy": accuracy.value,
            "attack_success_rate": None if success is None else success.value,
        }
        for count, (accuracy, success) in enumerate(rates)
    ]
