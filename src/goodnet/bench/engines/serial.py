"""Serial: one cell after the other, in this process; the engine for debugging."""

from collections.abc import Iterable
from dataclasses import dataclass

from goodnet.bench.engines._base import Perform, Progress, Summary, compute
from goodnet.bench.engines._plan import Plan
from goodnet.bench.record import Cell
from goodnet.bench.store import Store


@dataclass(frozen=True, kw_only=True)
class Serial:
    """Computes cells one after the other. A cell that kills its process ends the run; finished cells are kept."""

    def run(
        self,
        cells: Iterable[Cell],
        store: Store,
        perform: Perform,
        *,
        retry_failed: bool = False,
        progress: Progress | None = None,
    ) -> Summary:
        """See ``run_cells``."""
        plan = Plan(cells, store, retry_failed=retry_failed, progress=progress)
        while (cell := plan.take()) is not None:
            plan.finish(cell, compute(cell, store, perform))
        return plan.summary()
