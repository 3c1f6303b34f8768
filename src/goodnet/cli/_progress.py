"""Progress bars on stderr, for people only."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from goodnet.cli._outcome import shown

if TYPE_CHECKING:
    from goodnet.bench import Progress as CellsProgress
    from goodnet.core.run import Progress


@contextlib.contextmanager
def progress_bar(title: str, *, silent: bool) -> Iterator["Progress | None"]:
    """What to call with the share done; None, and nothing is shown, when ``silent`` or stderr is no terminal."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(title), total=1.0)

        def advance(share: float, text: str) -> None:
            bar.update(task, completed=share, description=escape(f"{title}  {text}"))

        yield advance


@contextlib.contextmanager
def cells_bar(title: str, *, silent: bool) -> Iterator["CellsProgress | None"]:
    """As ``progress_bar``, for the cells of a benchmark: how many of how many, the time left, and what failed."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def advance(finished: int, total: int, left: float | None, text: str) -> None:
            remaining = "" if left is None else f", about {timedelta(seconds=round(left))} left"
            bar.update(task, completed=finished, total=total, description=f"{title}{remaining}")
            if not text.endswith(": done"):
                bar.console.print(Text(shown(text)))

        yield advance
