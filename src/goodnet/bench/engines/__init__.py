"""Engines: one call computes the cells of a benchmark, in this process, in several, or on a cluster."""

from collections.abc import Iterable

from goodnet.bench.engines._base import Engine, Perform, Progress, Summary
from goodnet.bench.engines.processes import Processes
from goodnet.bench.engines.ray_engine import Ray
from goodnet.bench.engines.serial import Serial
from goodnet.bench.record import Cell
from goodnet.bench.store import Store
from goodnet.core.registry import unknown_name
from goodnet.errors import UnknownName, UsageError

NAMES = ("serial", "processes", "ray")


def run_cells(
    cells: Iterable[Cell],
    store: Store,
    perform: Perform,
    *,
    engine: str | Engine = "serial",
    workers: int | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Compute what the store does not hold yet of ``cells`` and their needs; may be killed and run again at any time.

    Every engine leaves the same rows. A cell that fails is a row that says why, and does not stop the others.

    Args:
        cells: what is wanted; needs that are only there for cells already done are not computed.
        store: where results go.
        perform: computes one cell; a function at the top level of a module, so that other processes find it.
        engine: "serial", "processes", "ray", or an engine with further settings, such as ``Processes(...)``.
        workers: at most so many cells at once; None for what the machine, or the cluster, has.
        retry_failed: try again what failed before.
        progress: called after every cell; see ``Progress``.

    Raises:
        UsageError: no such engine, cells that need each other in a circle, or a store that cannot be written.
    """
    chosen = _engine(engine, workers) if isinstance(engine, str) else engine
    if chosen is engine and workers is not None:
        raise UsageError("say how many workers where the engine is made, not here")
    return chosen.run(cells, store, perform, retry_failed=retry_failed, progress=progress)


def _engine(name: str, workers: int | None) -> Engine:
    match name:
        case "serial":
            if workers not in (None, 1):
                raise UsageError("the serial engine has one worker; take the engine 'processes' for more")
            return Serial()
        case "processes":
            return Processes(workers=workers)
        case "ray":
            return Ray(workers=workers)
    raise UnknownName(unknown_name("engine", name, NAMES))
