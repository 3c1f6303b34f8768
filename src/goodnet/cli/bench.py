"""goodnet bench: a suite of attacks and defenses, computed cell by cell, as tables and as a page."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._progress import cells_bar
from goodnet.core.registry import unknown_name
from goodnet.errors import UnknownName

if TYPE_CHECKING:
    from goodnet.bench import Summary
    from goodnet.bench.table import Table, TableRow
    from goodnet.bench.trial import Trial

_FORMATS = ("text", "csv", "markdown", "latex", "json")
_MOST_LISTED = 10
_DONE, _SOME_FAILED = 0, 1

SuiteName = Annotated[
    str, typer.Argument(metavar="SUITE", help="A name of goodnet list suites, or the path of a .toml file.")
]
Size = Annotated[str, typer.Option(metavar="NAME", help="A size of the suite, such as small.")]
StoreFolder = Annotated[
    Path, typer.Option("--store", metavar="DIR", file_okay=False, help="Where finished cells are kept.")
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", exists=True, file_okay=False, help="Holds the data sets by name."),
]
EngineName = Annotated[str, typer.Option("--engine", metavar="serial|processes|ray", help="Who computes.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="At most so many cells at once; as many as the machine has room for if left out."),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")]
Format = Annotated[str, typer.Option("--format", metavar="|".join(_FORMATS), help="How it is printed.")]
BySeed = Annotated[bool, typer.Option("--by-seed", help="A row for each seed, instead of mean and deviation.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The page, such as page.html.")]

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Suites of attacks and defenses: compute them, and see what came of it.

    \b
    Examples:
      goodnet bench run quick --size small
      goodnet bench table quick --size small
      goodnet bench page quick --size small --out page.html
    """


@app.command()
def run(
    suite: SuiteName,
    size: Size = "full",
    data: DataFolder = None,
    store: StoreFolder = Path("bench-store"),
    engine: EngineName = "processes",
    workers: Workers = None,
    retry_failed: RetryFailed = False,
    as_json: _options.Json = False,
) -> int:
    """Compute what the store does not hold yet. It may be stopped, or killed, and run again at any time.

    A row of a suite is made of cells: a net, an audit of it. Each is kept in the store as soon as it is finished, and
    is never computed twice. A cell that fails does not stop the others.

    \b
    Examples:
      goodnet bench run quick --size small
      goodnet bench run thesis-attacks --data data/ --store /results --workers 8
      goodnet bench run mine.toml --engine serial --retry-failed

    \b
    Exit codes:
      0  all cells are done
      1  some failed; the others are done
      2  something cannot be read or written, or wrong usage
    """
    from goodnet.bench import Store, open_suite, run_cells
    from goodnet.bench.cells import cell_of, perform

    chosen, kept = open_suite(suite), Store(store)
    cells = [cell_of(row) for row in chosen.rows(size)]
    compute = partial(perform, data=None if data is None else data.absolute())
    try:
        with cells_bar(f"{chosen.name}, {size}", silent=as_json) as progress:
            summary = run_cells(
                cells, kept, compute, engine=engine, workers=workers, retry_failed=retry_failed, progress=progress
            )
    except KeyboardInterrupt:
        _outcome.complain(f"interrupted; finished cells are kept in {store}, and the same command goes on from there")
        return _outcome.INTERRUPTED
    _tell_run(summary, _table(suite, size, store), store, as_json)
    return _SOME_FAILED if summary.failed else _DONE


@app.command()
def status(
    suite: SuiteName, size: Size = "full", store: StoreFolder = Path("bench-store"), as_json: _options.Json = False
) -> int:
    """Say what is done, what failed and why, and what is still to be computed.

    \b
    Example:
      goodnet bench status quick --size small
    """
    made = _table(suite, size, store)
    if as_json:
        counts = {status: made.count(status) for status in ("done", "failed", "missing")}
        rows = [_row_json(row, trial) for row in made.rows for trial in row.trials]
        typer.echo(json.dumps({"schema": 1, "suite": made.name, "size": size, **counts, "rows": rows}, indent=1))
        return _DONE
    _say(_status_lines(made, store))
    if made.count("done") < len(made.trials):
        retry = " --retry-failed" if made.count("failed") else ""
        _say([f"  go on with: goodnet bench run {suite} --size {size} --store {store}{retry}"])
    return _DONE


@app.command()
def table(
    suite: SuiteName,
    size: Size = "full",
    store: StoreFolder = Path("bench-store"),
    format_: Format = "text",
    by_seed: BySeed = False,
) -> int:
    """Print what was measured, also while a run is still at work. CSV has a line for each seed in any case.

    \b
    Examples:
      goodnet bench table quick --size small
      goodnet bench table quick --size small --format csv > quick.csv
      goodnet bench table quick --format latex --by-seed
    """
    from goodnet.bench import formats

    makers: dict[str, Callable[[Table], str]] = {
        "text": partial(formats.as_text, width=shutil.get_terminal_size((160, 24)).columns),
        "csv": formats.as_csv,
        "markdown": formats.as_markdown,
        "latex": formats.as_latex,
        "json": formats.as_json,
    }
    if format_ not in makers:
        raise UnknownName(unknown_name("format", format_, _FORMATS))
    made = _table(suite, size, store)
    typer.echo(makers[format_](made if by_seed else made.gathered()), nl=False)
    return _DONE


@app.command()
def page(
    suite: SuiteName,
    out: Out,
    size: Size = "full",
    store: StoreFolder = Path("bench-store"),
    by_seed: BySeed = False,
) -> int:
    """Write one HTML page that opens anywhere: the table, to sort and to filter, plots, and how it was made.

    \b
    Example:
      goodnet bench page quick --size small --out page.html
    """
    from goodnet.bench.page import write_page

    made = _table(suite, size, store)
    _say([f"{write_page(made if by_seed else made.gathered(), out)}"])
    return _DONE


def _table(suite: str, size: str, store: Path) -> "Table":
    from goodnet.bench import Store, open_suite
    from goodnet.bench.table import table

    return table(open_suite(suite), size, Store(store))


def _tell_run(summary: "Summary", made: "Table", store: Path, as_json: bool) -> None:
    """What one run came to."""
    if as_json:
        failed = [_row_json(row, trial) for row in made.rows for trial in row.trials if trial.status == "failed"]
        record = {"schema": 1, "suite": made.name, "size": made.size, "store": str(store), "computed": summary.done}
        record |= {"skipped": summary.skipped, "failed": summary.failed, "damaged": list(summary.damaged)}
        typer.echo(json.dumps({**record, "failures": failed}, indent=1))
        return
    for line in summary.damaged:
        _outcome.complain(line)
    _say(_status_lines(made, store))
    _say([f"  cells: {summary.done:,} computed now, {summary.skipped:,} done before, {summary.failed:,} failed"])


def _status_lines(made: "Table", store: Path) -> list[str]:
    """Counts, and the rows that are not done, those that failed first."""
    from goodnet.bench.sentences import STATUS, progress, title_of

    lines = [f"{made.name}, {made.size}, in {store}: {progress(made)} of {len(made.trials):,} rows"]
    for status in ("failed", "missing"):
        named = [(title_of(row), trial) for row in made.rows for trial in row.trials if trial.status == status]
        for name, trial in named[: None if status == "failed" else _MOST_LISTED]:
            why = f": {trial.reason}" if trial.reason else ""
            lines.append(f"  {STATUS[status]:<11}  {name}, seed {trial.seed}{why}")
        if status == "missing" and len(named) > _MOST_LISTED:
            lines.append(f"  {'':<11}  and {len(named) - _MOST_LISTED:,} more")
    return lines


def _row_json(row: "TableRow", trial: "Trial") -> dict[str, Any]:
    named = {"label": row.label, "attack": row.attack, "audit": row.audit, "repair": row.repair, "data": row.data}
    return {**named, "seed": trial.seed, "key": trial.key, "status": trial.status, "reason": trial.reason}


def _say(lines: Sequence[str]) -> None:
    typer.echo(_outcome.shown("\n".join(lines)))
