"""goodnet scan: what would these model files execute?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from goodnet.cli import _options, _outcome
from goodnet.errors import GoodnetError

if TYPE_CHECKING:
    from goodnet.models.file_safety import SafetyReport


def scan(files: _options.Files, sarif: _options.Sarif = None, as_json: _options.Json = False) -> int:
    """Say what model files would execute when loaded the usual way. Nothing in them is executed.

    \b
    Examples:
      goodnet scan model.pt
      goodnet scan downloads/*.h5 --json

    \b
    Exit codes, the worst of several files in the order 1, 2, 0:
      0  nothing would be executed and everything can be read
      1  something would be executed
      2  a file cannot be read, or wrong usage
    """
    reports = []
    for path in files:
        reports.append(_scanned(path))
        if not as_json:
            _tell(reports[-1])
    if sarif is not None:
        from goodnet.report.sarif import scan_results, write_sarif

        write_sarif(sarif, [one for report in reports for one in scan_results(str(report.file), report.findings)])
    if as_json:
        records = [_record(report) for report in reports]
        typer.echo(json.dumps(records[0] if len(records) == 1 else records, indent=1))
    return _outcome.worst(map(_code, reports))


def _scanned(path: Path) -> "SafetyReport":
    """What is known about one file; that it cannot be read is a finding too."""
    from goodnet.models.file_safety import Finding, SafetyReport, scan_file

    try:
        return scan_file(path)
    except GoodnetError as error:
        return SafetyReport(path, "unknown", "", 0, (Finding("unreadable", "", "", str(error)),))


def _record(report: "SafetyReport") -> dict[str, object]:
    return {
        "schema": 1,
        "file": str(report.file).encode("utf-8", "backslashreplace").decode(),
        "sha256": report.sha256,
        "kind": report.kind,
        "size_bytes": report.size_bytes,
        "safe": report.safe,
        "findings": [str(finding) for finding in report.findings],
    }


def _code(report: "SafetyReport") -> int:
    """The exit code of one file."""
    if report.safe:
        return _outcome.NOTHING_FOUND
    executes = any(finding.severity == "executes" for finding in report.findings)
    return _outcome.FOUND if executes else _outcome.NO_ANSWER


def _tell(report: "SafetyReport") -> None:
    answer = "can be loaded: nothing in it would be executed" if report.safe else "must not be loaded"
    lines = [f"{report.file} ({report.kind})", f"  {answer}", *(f"  {finding}" for finding in report.findings)]
    typer.echo(_outcome.shown("\n".join(lines)))
