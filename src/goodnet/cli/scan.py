"""goodnet scan: what would these model files execute?"""

import json
from pathlib import Path

import typer

from goodnet.cli import _options, _outcome
from goodnet.errors import GoodnetError


@_outcome.ends_in_words
def scan(files: _options.Files, as_json: _options.Json = False) -> int:
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
    records = []
    codes = []
    for path in files:
        record, code = _scanned(path)
        records.append(record)
        codes.append(code)
        if not as_json:
            _tell(record)
    if as_json:
        typer.echo(json.dumps(records[0] if len(records) == 1 else records, indent=1))
    return _outcome.worst(codes)


def _scanned(path: Path) -> tuple[dict[str, object], int]:
    """What is known about one file, and its exit code."""
    from goodnet.models.file_safety import scan_file

    name = str(path).encode("utf-8", "backslashreplace").decode()
    try:
        report = scan_file(path)
    except GoodnetError as error:
        record = {"schema": 1, "file": name, "sha256": "", "kind": "unknown", "safe": False, "findings": [str(error)]}
        return record, _outcome.code_of(error)
    record = {
        "schema": 1,
        "file": name,
        "sha256": report.sha256,
        "kind": report.kind,
        "size_bytes": report.size_bytes,
        "safe": report.safe,
        "findings": [str(finding) for finding in report.findings],
    }
    if report.safe:
        return record, _outcome.NOTHING_FOUND
    executes = any(finding.severity == "executes" for finding in report.findings)
    return record, _outcome.FOUND if executes else _outcome.NO_ANSWER


def _tell(record: dict[str, object]) -> None:
    findings = record["findings"]
    assert isinstance(findings, list)
    answer = "can be loaded: nothing in it would be executed" if record["safe"] else "must not be loaded"
    lines = [f"{record['file']} ({record['kind']})", f"  {answer}", *(f"  {finding}" for finding in findings)]
    typer.echo(_outcome.shown("\n".join(lines)))
