"""What engines have in common: how one cell is computed, and what an engine promises."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from goodnet.bench._machine import reset_peak_memory
from goodnet.bench.record import Cell, plain
from goodnet.bench.store import Store

# (cell, empty folder for files that it makes, store with what it needs) -> its result, JSON values.
# Whatever it raises makes the cell a failed one. "result.json" is the store's own name in that folder.
Perform = Callable[[Cell, Path, Store], Mapping[str, JsonValue]]

# (cells finished, cells in total, estimate of the seconds left or None, what just happened)
Progress = Callable[[int, int, float | None, str], None]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of the cells of one run, each counted once.

    Attributes:
        done: computed now.
        failed: failed now, or before and not tried again.
        skipped: were done before.
        damaged: one sentence for each result that was there but could not be trusted; those cells were computed again.
    """

    done: int
    failed: int
    skipped: int
    damaged: tuple[str, ...] = ()


class Engine(Protocol):
    """Computes cells; ``run_cells`` says what the arguments are."""

    def run(
        self,
        cells: Iterable[Cell],
        store: Store,
        perform: Perform,
        *,
        retry_failed: bool = False,
        progress: Progress | None = None,
    ) -> Summary: ...


def compute(cell: Cell, store: Store, perform: Perform) -> str | None:
    """Perform one cell and put what came of it into the store. Returns None, or why the cell failed.

    Raises:
        UsageError: the store cannot be written.
    """
    started = time.monotonic()
    reset_peak_memory()
    with store.scratch(cell.key) as folder:
        try:
            result = plain(perform(copy.deepcopy(cell), folder, store))  # its own copy, so that the row stays true
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a method raises is a row of the table
            reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        else:
            store.put(cell, folder, result, time.monotonic() - started)
            return None
    store.fail(cell, reason, time.monotonic() - started)
    return reason
