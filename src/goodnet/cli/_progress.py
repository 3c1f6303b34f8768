"""A progress bar on stderr, for people only."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
