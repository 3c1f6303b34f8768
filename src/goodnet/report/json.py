"""Audit results as JSON values of a stable form: ``goodnet.report.schema`` defines it, ``docs/json.md`` tells it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from goodnet.audit._base import LabelFinding, Verdict
from goodnet.core.trigger import Trigger
from goodnet.report.audited import AuditedFile
from goodnet.report.schema import AuditRecord, ReportRecord


def verdict_to_dict(verdict: Verdict, *, file: str, sha256: str, file_findings: Sequence[str] = ()) -> dict[str, Any]:
    """A verdict about one file as JSON values; nan and infinities become None."""
    provenance = verdict.provenance
    return _record(
        {
            "file": file,
            "sha256": sha256,
            "flagged": verdict.flagged,
            "targets": verdict.targets,
            "p_value": verdict.p_value,
            "method": provenance.method,
            "labels": verdict.num_classes,
            "seconds": provenance.seconds,
            "peak_memory_bytes": provenance.peak_memory_bytes,
            "per_label": [_label(finding) for finding in sorted(verdict.per_class, key=lambda found: found.label)],
            "file_findings": file_findings,
            "score": verdict.score,
            "alpha": verdict.alpha,
            "reason": verdict.reason,
            "triggers": [_trigger(trigger) for trigger in verdict.triggers],
            "natural_features": [asdict(feature) for feature in verdict.natural],
            "evidence": verdict.evidence,
            "method_version": provenance.version,
            "parameters": provenance.parameters,
            "assumes": provenance.assumes,
            "seed": provenance.seed,
            "device": provenance.device,
            "counts": provenance.counts,
            "versions": provenance.versions,
        }
    )


def refusal_to_dict(
    *, file: str, error: str, error_type: str, sha256: str = "", file_findings: Sequence[str] = ()
) -> dict[str, Any]:
    """A file that was not audited: the same keys as ``verdict_to_dict``; ``flagged`` is None, ``error`` says why."""
    return _record(
        {"file": file, "sha256": sha256, "error": error, "error_type": error_type, "file_findings": file_findings}
    )


def audited_to_dict(item: AuditedFile) -> dict[str, Any]:
    """One file, whether it has a verdict or was refused."""
    findings = [str(finding) for finding in item.file_findings]
    if item.verdict is None:
        return refusal_to_dict(
            file=item.file,
            error=item.error,
            error_type=item.error_type,
            sha256=item.sha256,
            file_findings=findings,
        )
    return verdict_to_dict(item.verdict, file=item.file, sha256=item.sha256, file_findings=findings)


def report_to_dict(items: Sequence[AuditedFile]) -> dict[str, Any]:
    """Several files, as ``report.json`` holds them."""
    report = ReportRecord.model_validate({"files": [audited_to_dict(item) for item in items]})
    return report.model_dump(mode="json", by_alias=True)


def plain(value: object) -> Any:
    """``value`` as JSON values: tensors and tuples become lists, what is not finite None, other objects their text.

    What is not Unicode in a string (file names of Linux may be any bytes) is written as a backslash escape.
    """
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case Tensor():
            return plain(value.tolist())
        case np.ndarray() | np.generic():
            return plain(value.tolist())
        case Mapping():
            return {plain(str(key)): plain(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(inner) for inner in value]
        case _:
            return plain(str(value))


def _record(values: Mapping[str, object]) -> dict[str, Any]:
    return AuditRecord.model_validate(plain(values)).model_dump(mode="json", by_alias=True)


def _label(finding: LabelFinding) -> dict[str, object]:
    return {**finding.details, "label": finding.label, "score": finding.score, "flagged": finding.flagged}


def _trigger(trigger: Trigger) -> dict[str, object]:
    return {
        "target": trigger.target,
        "success_rate": trigger.success_rate,
        "count": trigger.count,
        "mask_l1": float(trigger.mask.sum()),
    }
