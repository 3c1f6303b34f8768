"""write_page: a benchmark as one page that opens anywhere and needs no network: table, plots, and how it was made."""

import base64
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

import goodnet
from goodnet.bench import sentences
from goodnet.bench.goodnets import GOODNET_HEADINGS, goodnet_cells
from goodnet.bench.page_words import HOW_TO_READ, REPAIRER_HEADINGS, TONES, facts, repairer_cells
from goodnet.bench.plots import bars, scatter
from goodnet.bench.repairs import ORACLE, repair_summaries
from goodnet.bench.table import Table, TableRow
from goodnet.errors import UsageError
from goodnet.evaluation import Rate, Spread
from goodnet.report.html import environment, write_files
from goodnet.report.words import duration, file_size, percent

_SIZES = {"wide": (820, 400), "narrow": (330, 330)}  # of the plot, in pixels


@dataclass(frozen=True)
class Cell:
    """What is shown, smaller and on demand; what it is sorted by (None: last) and filtered by; its tone."""

    text: str
    small: tuple[str, ...] = ()
    folded: str = ""
    folded_as: str = "parameters"
    value: float | str | None = None
    choice: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Column:
    """A heading, "text" or "number", and the cell of a row."""

    heading: str
    kind: str
    cell: Callable[[TableRow], Cell]


def write_page(table: Table, path: str | os.PathLike[str]) -> Path:
    """Write the page; it appears complete or not at all, and takes the place of a file that was there.

    Raises:
        UsageError: ``path`` is a folder, or lies in none.
    """
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: give a file in a folder that is there")
    write_files(path.parent, {path.name: render(table).encode("utf-8", "backslashreplace")})
    return path


def render(table: Table) -> str:
    """The page as HTML."""
    templates = environment("goodnet.bench", "goodnet.report")
    script = templates.get_template("leaderboard.js").render()
    columns, repairers = _columns(table), [repairer_cells(one) for one in repair_summaries(table)]
    return templates.get_template("leaderboard.html").render(
        table=table,
        columns=columns,
        rows=[[column.cell(row) for column in columns] for row in table.rows],
        plots={name: plot for name, size in _SIZES.items() if (plot := scatter(table, *size)) is not None},
        bars=bars(table),
        repairers=repairers,
        oracle=ORACLE,
        repairer_headings=REPAIRER_HEADINGS,
        goodnets=goodnet_cells(table),
        goodnet_headings=GOODNET_HEADINGS,
        tones=TONES,
        facts=facts(table),
        problems=sentences.problems(table),
        how_to_read=HOW_TO_READ,
        script=Markup(script),  # noqa: S704 - ours, without anything of the table in it
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        progress=sentences.progress(table),
        version=goodnet.__version__,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _columns(table: Table) -> list[Column]:
    tried = [Column(name, "text", _tried(text)) for name, text in sentences.differing(table).items()]
    published = [
        Column("accuracy, difference", "number", _accuracy_difference),
        Column("success, difference", "number", _success_difference),
    ]
    return [
        Column("attack", "text", _attack),
        *tried,
        Column("clean accuracy", "number", lambda row: _rate([one.accuracy for one in row.trials], row.accuracy)),
        Column("attack success", "number", lambda row: _rate([one.success for one in row.trials], row.success)),
        *(published if any(row.published for row in table.rows) else []),
        *([Column("verdict", "text", _verdict)] if sentences.audited(table) else []),
        *(_REPAIR if sentences.repaired(table) else []),
        Column("time", "number", _time),
        Column("memory", "number", _memory),
        Column("status", "text", _status),
    ]


def _tried(text: Callable[[TableRow], str]) -> Callable[[TableRow], Cell]:
    return lambda row: Cell(text(row), value=text(row), choice=text(row))


def _attack(row: TableRow) -> Cell:
    method, _, parameters = row.attack.partition(" ")
    if row.label:
        return Cell(row.label, folded=row.attack, value=row.label, choice=method)
    return Cell(method, (parameters,) if parameters else (), value=row.attack, choice=method)


def _rate(rates: list[Rate | None], over: Spread) -> Cell:
    shown, *small = sentences.rate_lines(rates, over)
    return Cell(shown, tuple(small), value=over.mean)


def _accuracy_difference(row: TableRow) -> Cell:
    said = None if row.published is None else row.published.clean_accuracy
    return _difference(row, said, row.accuracy_difference)


def _success_difference(row: TableRow) -> Cell:
    said = None if row.published is None else row.published.attack_success_rate
    return _difference(row, said, row.success_difference)


def _difference(row: TableRow, said: float | None, difference: float | None) -> Cell:
    if said is None or row.published is None:
        return Cell("–")
    shown = "–" if difference is None else f"{sentences.points(difference)} points"
    return Cell(shown, (f"published {percent(said)}", row.published.source), value=difference)


def _verdict(row: TableRow) -> Cell:
    outcome, *small = sentences.verdict_lines(row)
    return Cell(outcome, tuple(small), value=outcome, choice=outcome, tone=TONES.get(outcome, ""))


def _accuracy_after(row: TableRow) -> Cell:
    shown, *small = sentences.accuracy_after_lines(row)
    return Cell(shown, tuple(small), value=row.accuracy_after.mean)


def _success_after(row: TableRow) -> Cell:
    shown, *small = sentences.success_after_lines(row)
    return Cell(shown, tuple(small), value=row.success_after.mean)


def _repair(row: TableRow) -> Cell:
    outcome, *small = sentences.repair_lines(row)
    reason = row.trials[0].repaired.reason if len(row.trials) == 1 and row.trials[0].repaired else ""
    return Cell(
        outcome,
        tuple(small),
        folded=reason,
        folded_as="why",
        value=outcome,
        choice=outcome,
        tone=TONES.get(outcome, ""),
    )


_REPAIR = (
    Column("accuracy after", "number", _accuracy_after),
    Column("success after", "number", _success_after),
    Column("outcome", "text", _repair),
)


def _time(row: TableRow) -> Cell:
    seconds = [trial.seconds for trial in row.trials if trial.seconds is not None]
    return Cell(duration(sum(seconds)), value=sum(seconds)) if seconds else Cell("–")


def _memory(row: TableRow) -> Cell:
    memory = [trial.peak_memory_bytes for trial in row.trials if trial.peak_memory_bytes]
    return Cell(file_size(max(memory)), value=max(memory)) if memory else Cell("–")


def _status(row: TableRow) -> Cell:
    words = sentences.status(row)
    return Cell(words, value=words, choice=words, tone=TONES.get(words, ""))
