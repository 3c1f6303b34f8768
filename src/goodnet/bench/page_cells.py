"""The cells of a benchmark's page: what stands in the table of its rows, and what it is sorted and filtered by."""

from collections.abc import Callable
from dataclasses import dataclass

from goodnet.bench import cleanse_words, sentences
from goodnet.bench.page_words import TONES
from goodnet.bench.table import Table, TableRow
from goodnet.evaluation import Rate, Spread
from goodnet.report.words import duration, file_size, percent


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


def columns_of(table: Table) -> list[Column]:
    """What was tried, as far as rows differ in it, and what was measured."""
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
        *(published if any(map(_has_figures, table.rows)) else []),
        *([Column("verdict", "text", _verdict)] if sentences.audited(table) else []),
        *(_CLEANSED if sentences.cleansed(table) else []),
        *(_CHANGED if sentences.changed(table) else []),
        *([Column("outcome", "text", _outcome)] if sentences.cleansed(table) or sentences.changed(table) else []),
        Column("time", "number", _time),
        Column("memory", "number", _memory),
        Column("status", "text", _status),
    ]


def _has_figures(row: TableRow) -> bool:
    said = row.published
    return said is not None and (said.clean_accuracy is not None or said.attack_success_rate is not None)


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


def _outcome(row: TableRow) -> Cell:
    outcome, *small = sentences.outcome_lines(row)
    reasons = [sentences.reason_of(trial) for trial in row.trials]
    return Cell(
        outcome,
        tuple(small),
        folded=reasons[0] if len(reasons) == 1 else "",
        folded_as="why",
        value=outcome,
        choice=outcome,
        tone=TONES.get(outcome, ""),
    )


def _said(
    lines: Callable[[TableRow], list[str]], value: Callable[[TableRow], float | None]
) -> Callable[[TableRow], Cell]:
    """A number with its lines: the first is shown, the others small."""

    def cell(row: TableRow) -> Cell:
        shown, *small = lines(row)
        return Cell(shown, tuple(small), value=value(row))

    return cell


_CHANGED = (
    Column("accuracy after", "number", _said(sentences.accuracy_after_lines, lambda row: row.accuracy_after.mean)),
    Column("success after", "number", _said(sentences.success_after_lines, lambda row: row.success_after.mean)),
)
_CLEANSED = (
    Column("AUROC", "number", _said(cleanse_words.auroc_lines, lambda row: row.auroc.mean)),
    Column(
        "TPR at 1% FPR",
        "number",
        _said(cleanse_words.at_1_lines, lambda row: row.cleansed(lambda one: one.at_1.value).mean),
    ),
    Column(
        "TPR at 5% FPR",
        "number",
        _said(cleanse_words.at_5_lines, lambda row: row.cleansed(lambda one: one.at_5.value).mean),
    ),
    Column(
        "poison removed",
        "number",
        _said(cleanse_words.poison_removed_lines, lambda row: row.cleansed(lambda one: one.poison_removed.value).mean),
    ),
    Column(
        "clean removed",
        "number",
        _said(cleanse_words.clean_removed_lines, lambda row: row.cleansed(lambda one: one.clean_removed.value).mean),
    ),
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
