"""write_page: a benchmark as one page that opens anywhere and needs no network: table, plots, and how it was made."""

import base64
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

import goodnet
from goodnet.bench import sentences
from goodnet.bench.cleanse_grid import cleanse_grid
from goodnet.bench.cleansings import cleanser_summaries
from goodnet.bench.goodnets import GOODNET_HEADINGS, goodnet_cells
from goodnet.bench.learnings import learner_summaries
from goodnet.bench.page_cells import columns_of
from goodnet.bench.page_words import (
    CLEANSER_HEADINGS,
    HOW_TO_READ,
    LEARNER_HEADINGS,
    REPAIRER_HEADINGS,
    TONES,
    cleanser_cells,
    facts,
    learner_cells,
    repairer_cells,
)
from goodnet.bench.plots import bars, scatter
from goodnet.bench.repairs import ORACLE, repair_summaries
from goodnet.bench.table import Table
from goodnet.errors import UsageError
from goodnet.report.html import environment, write_files

_SIZES = {"wide": (820, 400), "narrow": (330, 330)}  # of the plot, in pixels


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
    columns = columns_of(table)
    return templates.get_template("leaderboard.html").render(
        table=table,
        columns=columns,
        rows=[[column.cell(row) for column in columns] for row in table.rows],
        plots={name: plot for name, size in _SIZES.items() if (plot := scatter(table, *size)) is not None},
        bars=bars(table),
        grid=cleanse_grid(table),
        repairers=[repairer_cells(one) for one in repair_summaries(table)],
        oracle=ORACLE,
        repairer_headings=REPAIRER_HEADINGS,
        cleansers=[cleanser_cells(one) for one in cleanser_summaries(table)],
        cleanser_headings=CLEANSER_HEADINGS,
        learners=[learner_cells(one) for one in learner_summaries(table)],
        learner_headings=LEARNER_HEADINGS,
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
