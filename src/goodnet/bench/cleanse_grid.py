"""Training sets against cleansers, as a picture: one line for each set, one column for each cleanser."""

from dataclasses import dataclass

from goodnet.bench.cleansings import CLEANSE_OUTCOMES
from goodnet.bench.page_words import TONES
from goodnet.bench.record import canonical
from goodnet.bench.sentences import differing, name_of
from goodnet.bench.table import Table, TableRow
from goodnet.report.words import percent

_NOT_THE_SET = ("cleanse", "held", "labeled", "sources", "label", "published")  # keys of a row
_TOLD = {"data": "", "architecture": "", "recipe": "", "seed": "seed "}  # said of a set where sets differ in it


@dataclass(frozen=True)
class GridCell:
    """What is shown, smaller, and its tone; which row of the table it is."""

    text: str
    small: str
    tone: str
    row: int


@dataclass(frozen=True)
class CleanseGrid:
    """Training sets against cleansers.

    Attributes:
        cleansers: headings, in the order of the table.
        lines: of each set its name, what is told of it besides, and a cell for each cleanser, None where there is none.
    """

    cleansers: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[GridCell | None, ...]], ...]


def cleanse_grid(table: Table) -> CleanseGrid | None:
    """The grid of the cleansings that are done; None with fewer than two cleansers."""
    cells: dict[str, dict[str, GridCell]] = {}
    names: dict[str, tuple[str, str]] = {}
    told = [(_TOLD[name], text) for name, text in differing(table).items() if name in _TOLD]
    for number, row in enumerate(table.rows, 1):
        if any(trial.cleansed is not None for trial in row.trials):
            key = canonical({name: value for name, value in row.values.items() if name not in _NOT_THE_SET})
            names.setdefault(
                key, (name_of(row), ", ".join([*(word + text(row) for word, text in told), *_success(row)]))
            )
            cells.setdefault(key, {}).setdefault(row.cleanse, _cell(row, number))
    cleansers = tuple(dict.fromkeys(row.cleanse for row in table.rows if row.cleanse != "none"))
    cleansers = tuple(name for name in cleansers if any(name in line for line in cells.values()))
    if len(cleansers) < 2:
        return None
    return CleanseGrid(
        cleansers, tuple((*names[key], tuple(line.get(name) for name in cleansers)) for key, line in cells.items())
    )


def _success(row: TableRow) -> list[str]:
    return [] if row.success.mean is None else [f"success {percent(row.success.mean)}"]


def _cell(row: TableRow, number: int) -> GridCell:
    """AUROC, and what was removed of poison and of clean samples; without poison what was removed."""
    made = [trial.cleansed for trial in row.trials if trial.cleansed is not None]
    tone = TONES[max((one.outcome for one in made), key=CLEANSE_OUTCOMES.index)]
    poison, clean = (
        row.cleansed(rate).mean for rate in (lambda one: one.poison_removed.value, lambda one: one.clean_removed.value)
    )
    lost = "–" if clean is None else percent(clean)
    if row.auroc.mean is None or poison is None:
        return GridCell(lost, "removed", tone, number)
    return GridCell(f"{row.auroc.mean:.3f}", f"{percent(poison)} / {lost}", tone, number)
