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
from goodnet.errors import NotApplicable, NotHeld
from goodnet.evaluation import evaluate, measure_goodnet, pruning_rates
from goodnet.guard.calibration import fit_goodnet
from goodnet.guard.rules import RULES
from goodnet.models.save import save_model
from goodnet.repair._base import Repairer, repairers
from goodnet.repair.files import FileRepair, repair_model
from goodnet.repair.fine_pruning import FinePruning
from goodnet.repair.pruning import Pruning

_FALSE_ALARMS = 0.02  # that a GoodNet is fitted to, as in goodnet repair
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
    if audit is not None and not found:
        made = _unchanged(suspect, aside, f"the audit names no label to repair ({audit['reason']})")
    else:
        made = _repaired(suspect, repairer, clean, aside, attack, found, parameters)
    after = suspect if made.repaired is None else made.repaired.model
    if after is not suspect:
        save_model(after, folder / "model")
    evaluation = evaluate(suspect, after, rest, attack).as_json()
    own_answers = "architecture" not in parameters["model"]
    return {
        "test_images": len(rest),
        **evaluation["before"],
        **({"clean_accuracy": None} if own_answers else {}),
        "repair": {
            **_told(made),
            "audit": audit,
            "own_answers": own_answers,
            "evaluation": evaluation,
            "goodnets": _goodnets(made, rest, attack),
            "curve": None if made.repaired is None else _curve(suspect, repairer, clean, rest, attack),
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
) -> FileRepair:
    """As ``goodnet repair``; truth is handed over only where the row says so."""
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
        return _unchanged(suspect, aside, str(error))


def _unchanged(suspect: Classifier, aside: Samples, reason: str) -> FileRepair:
    return FileRepair(suspect=suspect, aside=aside, reason=reason)


def _goodnets(made: FileRepair, rest: Samples, attack: Attack | None) -> dict[str, Any]:
    """What suspect and repaired model do together, by rule; each as ``goodnet repair`` fits it, or why it cannot be."""
    answers: dict[str, Any] = {}
    if made.repaired is None:
        return answers
    for rule in RULES:
        try:
            goodnet = fit_goodnet(
                made.suspect, made.repaired.model, made.aside, rule=rule, rate=_FALSE_ALARMS, triggers=made.triggers
            )
        except NotHeld as error:
            answers[rule] = {"reason": str(error)}
        else:
            measured = measure_goodnet(goodnet, rest, attack).as_json()
            answers[rule] = {"thresholds": goodnet.rule.thresholds(), **measured}
    return answers


def _told(made: FileRepair) -> dict[str, Any]:
    repaired = made.repaired
    return {
        "made": repaired is not None,
        "accepted": made.accepted,
        "reason": made.reason,
        "proof": None if made.proof is None else made.proof.as_json(),
        "retuned": [one.as_json() for one in made.retuned],
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
