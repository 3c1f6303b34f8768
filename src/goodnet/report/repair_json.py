"""A repair as JSON values of a stable form: ``goodnet.report.repair_schema`` defines it, ``docs/json.md`` tells it."""

from dataclasses import asdict, dataclass
from typing import Any

from goodnet.guard.goodnet import GoodNet
from goodnet.repair.files import FileRepair
from goodnet.report.json import plain
from goodnet.report.repair_schema import RepairRecord


@dataclass(frozen=True, kw_only=True)
class RepairedFile:
    """One model file and what came of its repair.

    Attributes:
        file: the path as it was given.
        result: what was found, made and proved.
        goodnet: both models in one; None where there is none.
    """

    file: str
    result: FileRepair
    goodnet: GoodNet | None = None


def repaired_to_dict(item: RepairedFile) -> dict[str, Any]:
    """What repair.json holds; nan and infinities become None."""
    result = item.result
    repaired, verdict, proof = result.repaired, result.verdict, result.proof
    made = None if repaired is None else repaired.provenance
    values = {
        "file": item.file,
        "sha256": result.suspect.origin.sha256,
        "accepted": result.accepted,
        "reason": result.reason,
        "audit": None
        if verdict is None
        else {"flagged": verdict.flagged, "targets": verdict.targets, "p_value": verdict.p_value},
        "method": None if made is None else made.method,
        "method_version": None if made is None else made.version,
        "parameters": None if made is None else made.parameters,
        "seed": None if made is None else made.seed,
        "seconds": sum(one.provenance.seconds for one in (verdict, repaired) if one is not None),
        "device": None if made is None else made.device,
        "counts": {} if made is None else made.counts,
        "versions": {} if made is None else made.versions,
        "notes": {} if repaired is None else repaired.notes,
        "evidence": {} if repaired is None else repaired.evidence,
        "proof": None if proof is None else proof.as_json(),
        "retuned": [one.as_json() for one in result.retuned],
        "goodnet": _goodnet(item.goodnet),
    }
    return RepairRecord.model_validate(plain(values)).model_dump(mode="json", by_alias=True)


def _goodnet(goodnet: GoodNet | None) -> dict[str, Any] | None:
    """How the GoodNet decides."""
    if goodnet is None or goodnet.calibration is None:
        return None
    return {
        "rule": goodnet.rule.name,
        "thresholds": goodnet.rule.thresholds(),
        "classes": goodnet.num_classes,
        **asdict(goodnet.calibration),
    }
