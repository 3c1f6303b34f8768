"""What a person reads in a table: columns, what is so in all rows, and what went wrong, in words."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from goodnet.bench.table import Table, TableRow
from goodnet.evaluation import Rate, Spread
from goodnet.report.words import duration, file_size, number, percent

STATUS = {"done": "done", "failed": "failed", "missing": "not run yet"}
_NOTHING = "–"
_TRIED: dict[str, Callable[[TableRow], str]] = {
    "data": lambda row: row.data,
    "architecture": lambda row: row.architecture,
    "recipe": lambda row: row.recipe,
    "audit": lambda row: row.audit,
    "seed": lambda row: ", ".join(str(trial.seed) for trial in row.trials),
}


@dataclass(frozen=True)
class Column:
    """A heading, and the lines that stand below it in a row; the first one matters most."""

    heading: str
    lines: Callable[[TableRow], list[str]]


def columns(table: Table) -> list[Column]:
    """What was tried, as far as rows differ in it, and what was measured."""
    tried = [Column(name, _only(text)) for name, text in differing(table).items()]
    verdict = [Column("verdict", verdict_lines)] if audited(table) else []
    return [
        Column("attack", lambda row: [name_of(row)]),
        *tried,
        Column("clean accuracy", accuracy_lines),
        Column("attack success", success_lines),
        *verdict,
        Column("cost", cost_lines),
        Column("status", lambda row: [status(row)]),
    ]


def caption(table: Table) -> list[str]:
    """Which suite this is, and what is the same in all of its rows."""
    same = "; ".join(f"{name} {text}" for name, text in shared(table).items())
    return [f"{table.name}, {table.size}: {table.summary}", *([same] if same else [])]


def notes(table: Table) -> list[str]:
    """How much there is of what, and why rows failed or are damaged."""
    return [f"Rows: {progress(table)}.", *problems(table)]


def shared(table: Table) -> dict[str, str]:
    """What was tried, as far as it is the same in all rows: name → text."""
    return {name: text(table.rows[0]) for name, text in _TRIED.items() if _same(table, text)}


def differing(table: Table) -> dict[str, Callable[[TableRow], str]]:
    """What was tried, as far as rows differ in it: name → text of a row."""
    return {name: text for name, text in _TRIED.items() if not _same(table, text)}


def audited(table: Table) -> bool:
    """Whether any row has an audit."""
    return any(row.audit != "none" for row in table.rows)


def problems(table: Table) -> list[str]:
    """Why rows failed, or what is wrong with what is there; a sentence each."""
    return [
        f"{name_of(row)}, seed {trial.seed}, {STATUS[trial.status]}: {trial.reason}"
        for row in table.rows
        for trial in row.trials
        if trial.reason
    ]


def progress(table: Table) -> str:
    """How many cells there are of each status; a row has one for each seed."""
    return ", ".join(f"{table.count(name):,} {words}" for name, words in STATUS.items() if table.count(name))


def name_of(row: TableRow) -> str:
    """What the suite calls a row, else its attack."""
    return row.label or row.attack


def accuracy_lines(row: TableRow) -> list[str]:
    """Clean accuracy with counts and interval, or over seeds; then what was published."""
    published = None if row.published is None else row.published.clean_accuracy
    measured = rate_lines([trial.accuracy for trial in row.trials], row.accuracy)
    return measured + _published_lines(published, row.accuracy_difference)


def success_lines(row: TableRow) -> list[str]:
    """Attack success, as ``accuracy_lines``."""
    published = None if row.published is None else row.published.attack_success_rate
    measured = rate_lines([trial.success for trial in row.trials], row.success)
    return measured + _published_lines(published, row.success_difference)


def rate_lines(rates: list[Rate | None], over: Spread) -> list[str]:
    """A share with counts and interval, or mean and standard deviation over the seeds; a line each."""
    known = [rate for rate in rates if rate is not None]
    if over.mean is None:
        return [_NOTHING]
    if len(rates) == 1:
        return [percent(over.mean), f"{known[0].hits:,}/{known[0].count:,}", _interval(known[0])]
    deviation = "" if over.standard_deviation is None else f" ± {100 * over.standard_deviation:.1f}"
    seeds = f"{over.count}" if over.count == len(rates) else f"{over.count} of {len(rates)}"
    return [f"{percent(over.mean)}{deviation}", f"{seeds} seeds"]


def verdict_lines(row: TableRow) -> list[str]:
    """What the audits said, against the truth."""
    judged = [trial.judged for trial in row.trials if trial.judged is not None]
    if len(judged) == 1:
        p_value = judged[0].p_value
        return [judged[0].outcome, *([] if p_value is None else [f"p={number(p_value)}"])]
    return [f"{count} × {outcome}" for outcome, count in Counter(one.outcome for one in judged).items()] or [_NOTHING]


def cost_lines(row: TableRow) -> list[str]:
    """Wall time of all trials together, and the most memory that one of them held."""
    seconds = [trial.seconds for trial in row.trials if trial.seconds is not None]
    memory = max((trial.peak_memory_bytes or 0 for trial in row.trials), default=0)
    return [duration(sum(seconds)), *([file_size(memory)] if memory else [])] if seconds else [_NOTHING]


def status(row: TableRow) -> str:
    """Done, failed or not run yet; of several trials how many of each."""
    found = Counter(STATUS[trial.status] for trial in row.trials)
    return next(iter(found)) if len(found) == 1 else ", ".join(f"{count} {words}" for words, count in found.items())


def points(difference: float) -> str:
    """A difference in points of percentage, with its sign."""
    return f"{100 * difference:+z.1f}".replace("-", "−")


def _interval(rate: Rate) -> str:
    interval = rate.interval()
    return "" if interval is None else f"[{100 * interval[0]:.1f}–{100 * interval[1]:.1f}]"


def _published_lines(share: float | None, difference: float | None) -> list[str]:
    if share is None:
        return []
    return [f"published {percent(share)}" + ("" if difference is None else f", {points(difference)}")]


def _only(text: Callable[[TableRow], str]) -> Callable[[TableRow], list[str]]:
    return lambda row: [text(row)]


def _same(table: Table, text: Callable[[TableRow], str]) -> bool:
    return len({text(row) for row in table.rows}) == 1
