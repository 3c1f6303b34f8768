"""goodnet audit: is there a backdoor in these model files?"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._look import ready
from goodnet.cli._progress import progress_bar
from goodnet.cli._values import duration
from goodnet.errors import GoodnetError, ParameterError, UsageError

if TYPE_CHECKING:
    from goodnet.audit.files import FileAudit
    from goodnet.report.audited import AuditedFile

Budget = Annotated[
    str | None, typer.Option(metavar="TIME", help="Best answer within this time for each file: 90, 90s, 2m, 1h.")
]
Alpha = Annotated[float, typer.Option(help="The share of clean models that may be flagged.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Write report.html and report.json there.")]


def audit(
    files: _options.Files,
    data: _options.Data = None,
    limit: _options.Limit = 1000,
    arch: _options.Arch = None,
    input_range: _options.InputRange = None,
    method: _options.Method = "neural-cleanse",
    set_: _options.Settings = None,
    budget: Budget = None,
    seed: _options.Seed = 0,
    device: _options.Device = "cpu",
    alpha: Alpha = 0.05,
    out: Out = None,
    sarif: _options.Sarif = None,
    as_json: _options.Json = False,
) -> int:
    """Say whether model files carry a backdoor.

    Prints the target labels, the size of each trigger, the p-value, and what the answer cost.

    \b
    Examples:
      goodnet audit model.h5 --data clean/
      goodnet audit model.pth --data clean/ --arch resnet18 --input-range imagenet --out report/
      goodnet audit a.h5 b.h5 --data faces.h5 --budget 2m --json
      goodnet audit model.h5 --data digits --set steps=300 --set images=32

    \b
    Exit codes, the worst of several files in the order 1, 2, 3, 0:
      0  no evidence of a backdoor, which is no proof that there is none
      1  backdoor found, or the file would execute something when loaded
      2  a file cannot be read, or wrong usage
      3  inconclusive
    """
    seconds = None if budget is None else duration(budget)
    if not 0 < alpha < 1:
        raise ParameterError(f"--alpha must be between 0 and 1, got {alpha}")
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder for the report")

    look = ready(
        method, set_ or (), data=data, limit=limit, arch=arch, input_range=input_range, device=device, seed=seed
    )
    look = partial(look, budget=seconds, alpha=alpha)
    items = []
    for path in files:
        items.append(_audited(path, look, silent=as_json))
        _tell(items[-1], silent=as_json)
    return _finish(items, out, sarif, as_json)


def _audited(path: Path, look: "partial[FileAudit]", *, silent: bool) -> "AuditedFile":
    """Audit one file; what is wrong with it becomes part of the answer, so that the next file has its turn."""
    from goodnet.models.file_safety import scan_file
    from goodnet.report.audited import audited, refused

    scanned = None
    try:
        scanned = scan_file(path)
        with progress_bar(path.name, silent=silent) as progress:
            result = look(path, progress=progress)
    except GoodnetError as error:
        return refused(error, file=str(path), scanned=scanned)
    return audited(result.verdict, result.model, result.samples, scanned=scanned)


def _tell(item: "AuditedFile", *, silent: bool) -> None:
    """The answer on stdout, unless ``silent``; the reason for a refusal on stderr."""
    from goodnet.cli._words import block

    if item.error:
        _outcome.complain(item.error)
    if not silent:
        typer.echo(_outcome.shown(block(item)))


def _finish(items: "list[AuditedFile]", out: Path | None, sarif: Path | None, as_json: bool) -> int:
    """Write what was asked for; the exit code of all files."""
    from goodnet.report.html import write_report
    from goodnet.report.json import audited_to_dict
    from goodnet.report.sarif import audit_results, write_sarif

    if sarif is not None:
        write_sarif(sarif, [result for item in items for result in audit_results(item)])
    page = None if out is None else write_report(out, items)
    if as_json:
        records = [audited_to_dict(item) for item in items]
        typer.echo(json.dumps(records[0] if len(records) == 1 else records, indent=1, allow_nan=False))
    elif page is not None:
        typer.echo(_outcome.shown(f"report: {page}"))
    return _outcome.worst(map(_code, items))


def _code(item: "AuditedFile") -> int:
    """The exit code of one file."""
    if item.verdict is None:
        return _outcome.FOUND if item.error_type == "UnsafeFile" else _outcome.NO_ANSWER
    if item.verdict.flagged is None:
        return _outcome.INCONCLUSIVE
    return _outcome.FOUND if item.verdict.flagged else _outcome.NOTHING_FOUND
