"""Plan: which cells are still to be computed, and in which order; every engine follows one."""

import heapq
import time
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from goodnet.bench.engines._base import Progress, Summary
from goodnet.bench.record import Cell, Record
from goodnet.bench.store import Store
from goodnet.errors import UnreadableFile, UsageError


class Plan:
    """Give cells out one by one, needs before those that need them, and keep count of what came of them.

    Cells come in the order in which they were asked for, each right after what it needs, so that a run that is stopped
    early has finished rows. A cell whose need failed is recorded as failed and not given out.

    Raises:
        UsageError: cells need each other in a circle.
    """

    def __init__(self, cells: Iterable[Cell], store: Store, *, retry_failed: bool, progress: Progress | None):
        store.sweep()
        self._store = store
        self._progress = progress
        self._started = time.monotonic()
        self._open: dict[str, Cell] = {}  # needs come before what needs them
        self._errors: dict[str, str] = {}
        self._damaged: list[str] = []
        self._done = self._skipped = 0
        seen: set[str] = set()
        for cell in cells:
            self._survey(cell, seen, retry_failed)
        self._total = len(seen)
        self._ranks = {key: rank for rank, key in enumerate(self._open)}
        self._sorter = TopologicalSorter(
            {key: {need.key for need in cell.needs} & self._open.keys() for key, cell in self._open.items()}
        )
        self._ready: list[tuple[int, str]] = []
        try:
            self._sorter.prepare()
        except CycleError as error:
            circle = " → ".join(str(self._open[key]) for key in error.args[1])
            raise UsageError(f"these cells need each other in a circle: {circle}") from None

    def _survey(self, cell: Cell, seen: set[str], retry_failed: bool) -> None:
        if cell.key in seen:
            return
        seen.add(cell.key)
        record = self._stored(cell)
        if record is not None and record.status == "done":
            self._skipped += 1
        elif record is not None and record.error is not None and not retry_failed:
            self._errors[cell.key] = record.error
        else:
            for need in cell.needs:
                self._survey(need, seen, retry_failed)
            self._open[cell.key] = cell

    def _stored(self, cell: Cell) -> Record | None:
        try:
            return self._store.read(cell.key)
        except UnreadableFile as error:
            self._damaged.append(str(error))
            return None

    def take(self) -> Cell | None:
        """The next cell to compute; None if there is none before another one is finished, or at all."""
        while True:
            for key in self._sorter.get_ready():
                heapq.heappush(self._ready, (self._ranks[key], key))
            if not self._ready:
                return None
            cell = self._open[heapq.heappop(self._ready)[1]]
            failed = next((need for need in cell.needs if need.key in self._errors), None)
            if failed is None:
                return cell
            self.fail(cell, f"NeedFailed: needs {failed.key}, which failed: {self._errors[failed.key]}")

    def take_back(self, cell: Cell) -> None:
        """A cell that was given out is to be given out again."""
        heapq.heappush(self._ready, (self._ranks[cell.key], cell.key))

    def fail(self, cell: Cell, error: str) -> None:
        """Record that a cell failed without an answer of its own."""
        self._store.fail(cell, error)
        self.finish(cell, error)

    def finish(self, cell: Cell, error: str | None) -> None:
        """A cell is in the store: done, or failed with an ``error``."""
        if error is None:
            self._done += 1
        else:
            self._errors[cell.key] = error
        self._sorter.done(cell.key)
        if self._progress is not None:
            finished = self._done + self._skipped + len(self._errors)
            computed = finished - (self._total - len(self._open))
            left = (time.monotonic() - self._started) / computed * (self._total - finished)
            self._progress(finished, self._total, left, f"{cell}: {error or 'done'}")

    def summary(self) -> Summary:
        return Summary(done=self._done, failed=len(self._errors), skipped=self._skipped, damaged=tuple(self._damaged))
