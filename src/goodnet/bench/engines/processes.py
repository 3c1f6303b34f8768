"""Processes: several cells at once on one machine, in processes that may die without taking the run with them."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from goodnet.bench._machine import available_memory_bytes, cores
from goodnet.bench.engines._base import Perform, Progress, Summary, compute
from goodnet.bench.engines._plan import Plan
from goodnet.bench.record import Cell
from goodnet.bench.store import Store
from goodnet.core.params import check_ranges, param
from goodnet.errors import UsageError

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_context = multiprocessing.get_context("spawn")  # a forked torch may hang


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Computes cells in worker processes of one thread each, which stay for many cells: importing torch takes seconds.

    A worker that dies (killed, out of memory) costs only its cell, which is tried once more and then is a failed one.
    Workers die with this process, whatever kills it.
    """

    workers: int | None = param(
        None, low=1, doc="at most so many cells at once; None for one per core, memory permitting"
    )
    memory_per_cell_bytes: int = param(2 * 1024**3, low=1, doc="what one cell may take; bounds the workers")

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
        _check_travels(perform)
        plan = Plan(cells, store, retry_failed=retry_failed, progress=progress)
        crew = _Crew(self._size(), store, perform)
        died: set[Cell] = set()
        try:
            while True:
                while crew.has_room() and (cell := plan.take()) is not None:
                    crew.give(cell)
                if not crew.busy():
                    return plan.summary()
                for answer in crew.answers():
                    if answer.death is None:
                        plan.finish(answer.cell, answer.error)
                    elif answer.cell in died:
                        plan.fail(answer.cell, f"WorkerDied: the worker process died ({answer.death})")
                    else:
                        died.add(answer.cell)
                        plan.take_back(answer.cell)
        finally:
            crew.stop()
            store.sweep()

    def _size(self) -> int:
        if self.workers is not None:
            return self.workers
        return max(1, min(cores(), available_memory_bytes() // self.memory_per_cell_bytes))


@dataclass(frozen=True)
class _Answer:
    """What came of a cell: it is in the store, with or without an ``error``, or its worker died."""

    cell: Cell
    error: str | None = None
    death: str | None = None


class _Worker:
    """One process, at the other end of a pipe, and the cell that it computes."""

    def __init__(self, store: Store, perform: Perform):
        self.connection, theirs = _context.Pipe()
        self.process = _context.Process(target=_serve, args=(theirs, store, perform))
        with _one_thread():
            self.process.start()
        theirs.close()
        self.began = False
        self.cell: Cell | None = None

    def give(self, cell: Cell) -> None:
        self.cell = cell
        with contextlib.suppress(BrokenPipeError):  # it died: answer() tells
            self.connection.send(cell)

    def answer(self) -> _Answer | None:
        """What came of its cell, or None while it is at work.

        Raises:
            UsageError: it could not begin, or could not write to the store.
        """
        if self.cell is None:
            return None
        alive = self.process.is_alive()  # asked first: what a dead worker said before is in the pipe
        try:
            while self.connection.poll():
                word, text = self.connection.recv()
                if word == "broken":
                    raise UsageError(text)
                self.began = True
                if word == "finished":
                    cell, self.cell = self.cell, None
                    return _Answer(cell, error=text)
        except (EOFError, ConnectionResetError):
            self.process.join()
            alive = False
        return None if alive else self._died()

    def _died(self) -> _Answer:
        code = self.process.exitcode or 0
        death = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not self.began:
            raise UsageError(
                f"a worker process ended before it could begin ({death}), see above; "
                "a script that runs a benchmark must do so below: if __name__ == '__main__'"
            )
        cell, self.cell = self.cell, None
        assert cell is not None
        return _Answer(cell, death=death)

    def stop(self) -> None:
        """End the process: at once if it is at work, else let it go."""
        self.connection.close()
        if self.cell is None:
            self.process.join(5)
        self.process.kill()
        self.process.join()


@dataclass
class _Crew:
    """At most ``size`` workers; those who died are replaced when there is something to do."""

    size: int
    store: Store
    perform: Perform
    workers: list[_Worker] = field(default_factory=list)

    def busy(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.cell is not None]

    def has_room(self) -> bool:
        return len(self.busy()) < self.size

    def give(self, cell: Cell) -> None:
        """To an idle worker, or to a new one."""
        worker = next((one for one in self.workers if one.cell is None and one.process.is_alive()), None)
        if worker is None:
            worker = _Worker(self.store, self.perform)
            self.workers.append(worker)
        worker.give(cell)

    def answers(self) -> Iterator[_Answer]:
        """Wait until somebody has something to say, or a second: a child of a dead worker may keep its pipe open."""
        wait([worker.connection for worker in self.busy()], timeout=1.0)
        for worker in self.busy():
            if (answer := worker.answer()) is not None:
                yield answer

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


def _serve(connection: Connection, store: Store, perform: Perform) -> None:
    """A worker's life: compute what comes through the pipe until the other end closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides what to do
    threading.Thread(target=_die_with_parent, daemon=True).start()
    connection.send(("began", None))
    while True:
        try:
            cell = connection.recv()
        except EOFError:
            return
        try:
            answer = ("finished", compute(cell, store, perform))
        except UsageError as error:
            answer = ("broken", str(error))
        connection.send(answer)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside have one thread; numpy and torch read these variables when they are imported."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_travels(perform: Perform) -> None:
    try:
        pickle.dumps(perform)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(f"other processes must find it: perform must be a function of a module ({error})") from error
