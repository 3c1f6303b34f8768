"""A table for people, as text, Markdown and LaTeX, and for programs, as CSV and JSON."""

import csv
import html
import io
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from goodnet.bench.columns import caption, columns, notes
from goodnet.bench.table import Table, TableRow
from goodnet.report.words import visible

_TRIED = ("label", "data", "architecture", "recipe", "attack", "audit", "repair", "cleanse", "learn")
_CLEANSED = (
    "true_positive_rate_at_1",
    "true_positive_rate_at_5",
    "poison_removed",
    "clean_removed",
    "covers_removed",
)
_GAP = 3  # characters between two columns
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|`*_[]"} | {"\n": " "})
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "×": r"$\times$", "–": "--", "−": "$-$", "\n": " "}
)


def as_text(table: Table, width: int = 120) -> str:
    """Aligned columns for a terminal of ``width`` characters."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    shown = RichTable(box=SIMPLE_HEAD, leading=1, pad_edge=False, show_edge=False, header_style="")
    chosen = columns(table)
    cells = [[visible("\n".join(column.lines(row))) for row in table.rows] for column in chosen]
    widths = _widths([[column.heading, *texts] for column, texts in zip(chosen, cells, strict=True)], width)
    for column, columns_width in zip(chosen, widths, strict=True):
        shown.add_column(column.heading, overflow="fold", width=columns_width)
    for texts in zip(*cells, strict=True):
        shown.add_row(*map(Text, texts))
    for part in (*map(_line, caption(table)), "", shown, "", *map(_line, notes(table))):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def as_markdown(table: Table) -> str:
    """A table in GitHub's Markdown; above it what all rows share, below it what is missing."""
    chosen = columns(table)
    rows = [[column.heading for column in chosen], ["---" for _ in chosen]]
    rows += [["<br>".join(map(_markdown, column.lines(row))) for column in chosen] for row in table.rows]
    above, below = (
        "<br>\n".join(map(_markdown, caption(table))),
        "\n".join(f"- {_markdown(line)}" for line in notes(table)),
    )
    return "\n\n".join([above, "\n".join(f"| {' | '.join(row)} |" for row in rows), below]) + "\n"


def as_latex(table: Table) -> str:
    """A ``tabular`` of the package booktabs, one line for each row."""
    chosen = columns(table)
    rows = [_latex(", ".join(column.lines(row)) for column in chosen) for row in table.rows]
    return "\n".join(
        [
            *map(_comment, caption(table)),
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{{'l' * len(chosen)}}}",
            r"\toprule",
            _latex(column.heading for column in chosen),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *map(_comment, notes(table)),
            "",
        ]
    )


def as_json(table: Table) -> str:
    """Everything; docs/benchmark.md says what is in it."""
    return json.dumps(table.as_json(), indent=1, allow_nan=False) + "\n"


def as_csv(table: Table) -> str:
    """One line for each trial, gathered or not: shares keep their counts, which a mean has not."""
    lines = [_flat(replace(row, trials=(trial,))) for row in table.rows for trial in row.trials]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _widths(texts: list[list[str]], width: int) -> list[int]:
    """Of columns that together fit in ``width``: lines are broken between words as long as that is enough."""
    widths = [max(len(line) for text in column for line in text.splitlines()) for column in texts]
    least = [max(len(word) for text in column for word in text.split()) for column in texts]
    while sum(widths) + _GAP * (len(widths) - 1) > width and max(widths) > 1:
        slack = [now - needed for now, needed in zip(widths, least, strict=True)]
        widths[slack.index(max(slack)) if max(slack) > 0 else widths.index(max(widths))] -= 1
    return widths


def _flat(row: TableRow) -> dict[str, Any]:
    """A row with one trial as one level of names and values."""
    whole, trial = row.as_json(), row.as_json()["trials"][0]
    flat = {name: whole[name] for name in _TRIED}
    flat |= {name: trial[name] for name in ("seed", "status", "reason")}
    published = whole["published"] or {}
    for name in ("clean_accuracy", "attack_success_rate"):
        flat |= _counted(name, trial[name]) | {f"{name}_published": published.get(name)}
        flat[f"{name}_difference"] = whole["difference"][name]
    verdict = trial["verdict"] or {}
    flat["published_source"] = published.get("source")
    flat |= {name: verdict.get(name) for name in ("outcome", "flagged", "targets_right", "p_value", "score")}
    flat |= _flat_repair(trial["repair"] or trial["learn"] or {})
    flat |= _flat_cleanse(trial["cleanse"] or {})
    flat |= {name: trial[name] for name in ("seconds", "peak_memory_bytes")}
    flat |= {name: trial["versions"].get(name) for name in ("goodnet", "torch", "python")}
    return flat | {name: trial[name] for name in ("git", "finished", "key")}


def _flat_repair(repair: dict[str, Any]) -> dict[str, Any]:
    """A trial's repair, or learner, likewise; empty cells without one."""
    flat: dict[str, Any] = {"repair_outcome": repair.get("outcome"), "repair_accepted": repair.get("accepted")}
    for name in ("clean_accuracy", "attack_success_rate"):
        after = (repair.get(name) or {}).get("after") or {}
        flat |= {f"{name}_after": after.get("value"), f"{name}_after_hits": after.get("hits")}
        flat[f"{name}_after_count"] = after.get("count")
    return flat | {name: repair.get(name) for name in ("accuracy_drop", "defense_effectiveness", "repair_succeeded")}


def _flat_cleanse(cleanse: dict[str, Any]) -> dict[str, Any]:
    """A trial's cleansing likewise."""
    low, high = cleanse.get("auroc_interval_95") or (None, None)
    flat: dict[str, Any] = {"auroc": cleanse.get("auroc"), "auroc_low": low, "auroc_high": high}
    for name in _CLEANSED:
        flat |= _counted(name, cleanse.get(name))
    return flat


def _counted(name: str, rate: dict[str, Any] | None) -> dict[str, Any]:
    """A share with counts and interval as five columns."""
    known = rate or {}
    low, high = known.get("interval_95") or (None, None)
    flat = {name: known.get("value"), f"{name}_hits": known.get("hits"), f"{name}_count": known.get("count")}
    return flat | {f"{name}_low": low, f"{name}_high": high}


def _line(text: str) -> Text:
    return Text(visible(text))


def _markdown(text: str) -> str:
    return html.escape(visible(text).translate(_MARKDOWN), quote=False)


def _latex(cells: Iterable[str]) -> str:
    return " & ".join(visible(cell).translate(_LATEX) for cell in cells) + r" \\"


def _comment(text: str) -> str:
    return "% " + " ".join(visible(text).split())
