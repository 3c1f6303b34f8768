"""Ray: cells on a cluster whose machines share the store's file system. Needs ``pip install 'goodnet[ray]'``."""

from collections.abc import Iterable
from dataclasses import dataclass
from logging import WARNING
from typing import Any

from goodnet.bench.engines._base import Perform, Progress, Summary, compute
from goodnet.bench.engines._plan import Plan
from goodnet.bench.record import Cell
from goodnet.bench.store import Store
from goodnet.core.params import check_ranges, param
from goodnet.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Computes each cell as one Ray task. Uses the Ray that runs in this process, else starts one and stops it after.

    A task whose worker dies is tried again ``retries`` times and then is a failed cell. goodnet and the module of
    ``perform`` must be importable on every machine.
    """

    workers: int | None = param(None, low=1, doc="at most so many cells at once; None for what the cluster has")
    cpus_per_cell: float = param(1.0, low=0, doc="cores that one cell takes, and its threads")
    gpus_per_cell: float = param(0.0, low=0, doc="GPUs that one cell takes; 0.25 puts four cells on one")
    retries: int = param(1, low=0, doc="how often a cell whose worker died is tried again")
    address: str | None = param(None, doc='a running cluster, "auto" finds it; None starts Ray on this machine')

    def __post_init__(self) -> None:
        check_ranges(self)

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
        ray = _import_ray()
        plan = Plan(cells, store, retry_failed=retry_failed, progress=progress)
        ours = not ray.is_initialized()
        if ours:
            self._start(ray)
        task = ray.remote(num_cpus=self.cpus_per_cell, num_gpus=self.gpus_per_cell, max_retries=self.retries)(compute)
        pending: dict[Any, Cell] = {}
        try:
            while True:
                while self._has_room(pending) and (cell := plan.take()) is not None:
                    pending[task.remote(cell, store, perform)] = cell
                if not pending:
                    return plan.summary()
                (ready, *_), _ = ray.wait(list(pending), num_returns=1)
                _finish(ray, plan, pending.pop(ready), ready)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()
            store.sweep()

    def _start(self, ray: Any) -> None:
        try:
            ray.init(
                address=self.address or "local", include_dashboard=False, log_to_driver=False, logging_level=WARNING
            )
        except ConnectionError as error:
            raise UsageError(f"no Ray cluster answers at {self.address!r}: {error}") from error

    def _has_room(self, pending: dict[Any, Cell]) -> bool:
        return self.workers is None or len(pending) < self.workers


def _finish(ray: Any, plan: Plan, cell: Cell, reference: Any) -> None:
    deaths = ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError
    try:
        error = ray.get(reference)
    except deaths as death:
        plan.fail(cell, f"WorkerDied: the worker process died ({type(death).__name__})")
    except ray.exceptions.RayError as broken:
        cause = getattr(broken, "cause", broken)
        if isinstance(cause, UsageError):  # the store cannot be written
            raise cause from None
        line = str(cause).partition("\n")[0]
        raise UsageError(
            f"Ray cannot run cells: {line}; goodnet and the module of perform must be importable on every machine"
        ) from broken
    else:
        plan.finish(cell, error)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("the ray engine needs Ray: pip install 'goodnet[ray]'") from error
    return ray
