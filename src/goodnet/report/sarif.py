"""Findings as SARIF 2.1.0 (OASIS standard), which code hosts and editors show beside the files."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import goodnet
from goodnet.models.scan.base import Finding
from goodnet.report.audited import AuditedFile
from goodnet.report.json import plain
from goodnet.report.words import headline, visible

_RULES = {  # name → level, description; a name is never reused
    "unsafe-file": ("error", "Loading this file the usual way would execute something."),
    "unreadable-file": ("warning", "Part of this file cannot be read."),
    "scan-note": ("note", "The scan of this file noticed something that is no danger."),
    "backdoor": ("error", "A backdoor was found in this model."),
    "inconclusive": ("warning", "Whether there is a backdoor in this model could not be decided."),
    "not-audited": ("warning", "This model was not audited."),
}
_RULE_OF_SEVERITY = {"executes": "unsafe-file", "unreadable": "unreadable-file", "note": "scan-note"}
_RULE_OF_ERROR = {"UnsafeFile": "unsafe-file", "UnreadableModel": "unreadable-file"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finding: a name of ``_RULES``, the file as it was given, a sentence, and JSON values for programs."""

    rule: str
    file: str
    message: str
    properties: Mapping[str, object] = field(default_factory=dict)


def scan_results(file: str, findings: Iterable[Finding]) -> list[Result]:
    """One result for each finding of the scan."""
    return [Result(rule=_RULE_OF_SEVERITY[found.severity], file=file, message=str(found)) for found in findings]


def audit_results(item: AuditedFile) -> list[Result]:
    """What the scan found, then the verdict, or why there is none; nothing where there is no evidence of a backdoor."""
    results = scan_results(item.file, item.file_findings)
    if item.verdict is None:
        rule = _RULE_OF_ERROR.get(item.error_type, "not-audited")
        said = any(result.rule == rule for result in results)
        return results if said else [*results, Result(rule=rule, file=item.file, message=item.error)]
    if item.verdict.flagged is False:
        return results
    rule = "backdoor" if item.verdict.flagged else "inconclusive"
    told = {"targets": item.verdict.targets, "pValue": item.verdict.p_value, "method": item.verdict.provenance.method}
    return [*results, Result(rule=rule, file=item.file, message=headline(item), properties=told)]


def write_sarif(path: str | os.PathLike[str], results: Sequence[Result]) -> None:
    """Write a log with these results; an empty one says that nothing was found."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sarif_log(results), indent=1, allow_nan=False))


def sarif_log(results: Sequence[Result]) -> dict[str, Any]:
    """The log as JSON values."""
    rules = [
        {"id": name, "shortDescription": {"text": text}, "defaultConfiguration": {"level": level}}
        for name, (level, text) in _RULES.items()
    ]
    driver = {"name": "goodnet", "version": goodnet.__version__, "rules": rules}
    return {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_record(result) for result in results]}],
    }


def _record(result: Result) -> dict[str, Any]:
    record = {
        "ruleId": result.rule,
        "ruleIndex": list(_RULES).index(result.rule),
        "level": _RULES[result.rule][0],
        "message": {"text": _escaped(visible(plain(result.message)))},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(result.file)}}}],
    }
    return {**record, "properties": plain(result.properties)} if result.properties else record


def _escaped(text: str) -> str:
    """Texts come from strangers, and SARIF reads links and placeholders in them (3.11.5, 3.11.6)."""
    return re.sub(r"[\\\[\]]", r"\\\g<0>", text).replace("{", "{{").replace("}", "}}")


def _uri(file: str) -> str:
    """A relative path stays relative, to wherever the command ran; file names may be any bytes."""
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote_from_bytes(os.fsencode(path.as_posix()))
