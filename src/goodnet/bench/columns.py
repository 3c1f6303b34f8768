"""A table in words: its columns, what stands above them and what below."""

from collections.abc import Callable
from dataclasses import dataclass

from goodnet.bench import cleanse_words, sentences
from goodnet.bench.cleansings import cleanser_summaries
from goodnet.bench.learnings import learner_summaries
from goodnet.bench.repairs import repair_summaries
from goodnet.bench.table import Table, TableRow


@dataclass(frozen=True)
class Column:
    """A heading, and the lines that stand below it in a row; the first one matters most."""

    heading: str
    lines: Callable[[TableRow], list[str]]


_AUDITED = (Column("verdict", sentences.verdict_lines),)
_CHANGED = (
    Column("accuracy after", sentences.accuracy_after_lines),
    Column("success after", sentences.success_after_lines),
)
_CLEANSED = (
    Column("AUROC", cleanse_words.auroc_lines),
    Column("TPR at 1% FPR", cleanse_words.at_1_lines),
    Column("poison removed", cleanse_words.poison_removed_lines),
    Column("clean removed", cleanse_words.clean_removed_lines),
)
_OUTCOME = (Column("outcome", sentences.outcome_lines),)


def columns(table: Table) -> list[Column]:
    """What was tried, as far as rows differ in it, and what was measured."""
    return [
        Column("attack", lambda row: [sentences.name_of(row)]),
        *(Column(name, _only(text)) for name, text in sentences.differing(table).items()),
        Column("clean accuracy", sentences.accuracy_lines),
        Column("attack success", sentences.success_lines),
        *(_AUDITED if sentences.audited(table) else ()),
        *(_CLEANSED if sentences.cleansed(table) else ()),
        *(_CHANGED if sentences.changed(table) else ()),
        *(_OUTCOME if sentences.cleansed(table) or sentences.changed(table) else ()),
        Column("cost", sentences.cost_lines),
        Column("status", lambda row: [sentences.status(row)]),
    ]


def caption(table: Table) -> list[str]:
    """Which suite this is, and what is the same in all of its rows."""
    same = "; ".join(f"{name} {text}" for name, text in sentences.shared(table).items())
    return [f"{table.name}, {table.size}: {table.summary}", *([same] if same else [])]


def notes(table: Table) -> list[str]:
    """How much there is of what, what defenses were worth, and why rows failed or are damaged."""
    return [
        f"Rows: {sentences.progress(table)}.",
        *map(sentences.summary_line, repair_summaries(table)),
        *map(cleanse_words.cleanser_line, cleanser_summaries(table)),
        *map(cleanse_words.learner_line, learner_summaries(table)),
        *sentences.problems(table),
    ]


def _only(text: Callable[[TableRow], str]) -> Callable[[TableRow], list[str]]:
    return lambda row: [text(row)]
