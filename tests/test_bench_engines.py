"""Engines: the same rows from each, each cell once, and nothing lost or half written whoever dies."""

import os
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from planted import heed_interrupts
from pydantic import JsonValue

from goodnet.bench import Cell, Processes, Ray, Serial, Store, Summary, run_cells
from goodnet.errors import ParameterError, UnknownName, UsageError

TESTS = str(Path(__file__).parent)
LOG = "log"


def act(cell: Cell, folder: Path, store: Store) -> Mapping[str, JsonValue]:
    """Do what the cell asks for, and note the cell in the store's log."""
    with open(store.root / LOG, "a") as log:
        log.write(f"{cell.key} {os.getpid()}\n")
    (folder / "half").write_text("h")
    match cell.parameters.get("do"):
        case "raise":
            raise ValueError("two\nlines")
        case "exit":
            sys.exit(3)
        case "full":
            raise OSError(28, "No space left on device")
        case "mend" if not (store.root / "mended").exists():
            raise ValueError("not yet")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "die once" if times(store, cell) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            time.sleep(0.04)
        case "sleep once" if times(store, cell) == 1:
            time.sleep(60)
        case "break":
            (store.root / "cells").rename(store.root / "moved")
            (store.root / "cells").write_text("")
        case "nan":
            return {"value": float("nan"), "inf": [float("inf")]}
        case "object":
            return {"value": object()}  # type: ignore[dict-item]
        case "spoil":
            dict.clear(cell.parameters)  # type: ignore[arg-type]
        case "threads":
            return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    (folder / "whole").write_text(cell.key)
    return {"key": cell.key, "needs": [store.result(need)["key"] for need in cell.needs]}


def times(store: Store, cell: Cell) -> int:
    """How often a cell was begun."""
    return Counter(line.split()[0] for line in (store.root / LOG).read_text().splitlines())[cell.key]


def cell_of(number: int, do: str = "", needs: tuple[Cell, ...] = ()) -> Cell:
    return Cell("test", {"number": number, "do": do, "needs": [need.key for need in needs]}, needs)


MODEL, BAD = cell_of(0), cell_of(1, "raise")
AUDITS = tuple(cell_of(10 + number, needs=(MODEL,)) for number in range(3))
MIXED = (
    *AUDITS,
    cell_of(20, needs=(MODEL, BAD)),
    cell_of(21, needs=(cell_of(20, needs=(MODEL, BAD)),)),
    cell_of(2, "nan"),
    cell_of(3, "object"),
    cell_of(4, "exit"),
    cell_of(5, "full"),
    cell_of(6, "spoil"),
    AUDITS[0],
)
DEADLY = (cell_of(7, "die"), cell_of(22, needs=(cell_of(7, "die"),)), cell_of(8, "die once"))


def store_in(folder: Path) -> Store:
    folder.mkdir(parents=True, exist_ok=True)
    return Store(folder)


def rows(store: Store) -> dict[str, dict[str, object]]:
    """What the store holds but for times and memory; fails if anything is half there."""
    kept = {}
    for name in os.listdir(store.root / "cells"):
        record = store.read(name)
        assert record is not None
        files = sorted(os.listdir(store.folder(name)))
        assert files == (["half", "result.json", "whole"] if record.result and "key" in record.result else files)
        assert "half" in files or record.status == "failed"
        kept[name] = record.model_dump(exclude={"seconds", "peak_memory_bytes", "finished"})
    return kept


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Summary]:
    store = store_in(tmp_path_factory.mktemp("serial"))
    return store, run_cells(MIXED, store, act)


# --- what comes of cells


def test_needs_come_first_and_everything_is_computed_once(serial: tuple[Store, Summary]) -> None:
    store, summary = serial
    assert summary == Summary(done=6, failed=6, skipped=0)
    order = [line.split()[0] for line in (store.root / LOG).read_text().splitlines()]
    assert order[:4] == [MODEL.key, *(audit.key for audit in AUDITS)]
    assert len(order) == len(set(order)) == 10
    assert len(rows(store)) == 12
    assert store.result(AUDITS[1]) == {"key": AUDITS[1].key, "needs": [MODEL.key]}


def test_failures_are_rows_that_say_why(serial: tuple[Store, Summary]) -> None:
    store, _ = serial
    errors = {
        record.parameters["number"]: record.error
        for record in map(store.read, store.keys())
        if record is not None and record.status == "failed"
    }
    reason = f"NeedFailed: needs {BAD.key}, which failed: ValueError: two lines"
    assert errors == {
        1: "ValueError: two lines",
        20: reason,
        21: f"NeedFailed: needs {MIXED[3].key}, which failed: {reason}",
        3: "TypeError: Object of type object is not JSON serializable",
        4: "SystemExit: 3",
        5: "OSError: [Errno 28] No space left on device",
    }
    assert os.listdir(store.folder(BAD.key)) == ["result.json"], "a failed cell keeps no half-made files"


def test_what_is_not_finite_becomes_none_and_parameters_stay_true(serial: tuple[Store, Summary]) -> None:
    store, _ = serial
    assert store.result(cell_of(2, "nan")) == {"value": None, "inf": [None]}
    record = store.read(cell_of(6, "spoil").key)
    assert record is not None
    assert record.parameters["number"] == 6


def test_processes_leave_the_same_rows_as_serial(tmp_path: Path, serial: tuple[Store, Summary]) -> None:
    store = store_in(tmp_path)
    assert run_cells(MIXED, store, act, engine="processes", workers=2) == serial[1]
    assert rows(store) == rows(serial[0])
    pids = {line.split()[1] for line in (store.root / LOG).read_text().splitlines()}
    assert len(pids) <= 2, "a worker serves many cells"
    assert str(os.getpid()) not in pids


RAY = """
import sys
from test_bench_engines import DEADLY, MIXED, Path, act, run_cells, store_in
print(run_cells((*MIXED, *DEADLY), store_in(Path(sys.argv[1])), act, engine="ray", workers=2))
import ray
print("running:", ray.is_initialized())
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'goodnet[ray]'")
def test_ray_leaves_the_same_rows_as_serial(tmp_path: Path, serial: tuple[Store, Summary]) -> None:
    said = subprocess.run(
        [sys.executable, "-c", RAY, str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": TESTS, "HOME": str(tmp_path)},  # Ray keeps a file at home
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    ).stdout
    assert "Summary(done=7, failed=8, skipped=0" in said
    assert "running: False" in said
    store = Store(tmp_path / "store")
    deadly = {cell.key for cell in DEADLY}
    assert {key: row for key, row in rows(store).items() if key not in deadly} == rows(serial[0])
    died = store.read(DEADLY[0].key)
    assert died is not None
    assert died.error == "WorkerDied: the worker process died (WorkerCrashedError)"
    assert times(store, DEADLY[0]) == times(store, DEADLY[2]) == 2


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is here")
def test_without_ray_its_engine_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pip install 'goodnet\[ray\]'"):
        run_cells([MODEL], store_in(tmp_path), act, engine="ray")


# --- running again


def test_a_second_run_computes_nothing_unless_failures_are_to_be_tried_again(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    mend = cell_of(1, "mend")
    cells = (MODEL, mend, cell_of(2, needs=(mend,)))
    assert run_cells(cells, store, act) == Summary(done=1, failed=2, skipped=0)
    assert run_cells(cells, store, act) == Summary(done=0, failed=2, skipped=1)
    assert times(store, mend) == 1
    (store.root / "mended").write_text("")
    assert run_cells(cells, store, act, retry_failed=True) == Summary(done=2, failed=0, skipped=1)
    assert (times(store, MODEL), times(store, mend)) == (1, 2)


def test_needs_of_finished_cells_are_not_computed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    run_cells(AUDITS[:1], store, act)
    for file in store.folder(MODEL.key).iterdir():
        file.unlink()
    store.folder(MODEL.key).rmdir()
    assert run_cells(AUDITS[:1], store, act) == Summary(done=0, failed=0, skipped=1)
    assert run_cells(AUDITS, store, act) == Summary(done=3, failed=0, skipped=1)


def test_cells_that_need_each_other_are_refused(tmp_path: Path) -> None:
    first = Cell("a", {})
    second = Cell("b", {}, (first,))
    store = store_in(tmp_path)
    with pytest.raises(UsageError, match=rf"in a circle: .*a {first.key[:8]}"):
        run_cells([Cell("a", {}, (second,)), MODEL], store, act)
    assert store.keys() == ()


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_progress_counts_up_to_all(tmp_path: Path, engine: str) -> None:
    store = store_in(tmp_path)
    run_cells([MODEL], store, act)
    told: list[tuple[int, int, float | None, str]] = []
    run_cells((*AUDITS, BAD, MODEL), store, act, engine=engine, progress=lambda *one: told.append(one))
    assert [one[:2] for one in told] == [(count, 5) for count in range(2, 6)]
    assert all(left is not None and left >= 0 for _, _, left, _ in told)
    assert told[-1][2] == 0
    assert sorted(one[3].split(": ", 1)[1] for one in told) == ["ValueError: two lines", "done", "done", "done"]


# --- who dies


def test_a_worker_that_dies_costs_only_its_cell(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    cells = (*DEADLY, *AUDITS)
    assert run_cells(cells, store, act, engine="processes", workers=2) == Summary(done=5, failed=2, skipped=0)
    died, need = store.read(DEADLY[0].key), store.read(DEADLY[1].key)
    assert died is not None
    assert died.error == "WorkerDied: the worker process died (signal 9)"
    assert need is not None
    assert need.error == f"NeedFailed: needs {DEADLY[0].key}, which failed: {died.error}"
    assert times(store, DEADLY[0]) == times(store, DEADLY[2]) == 2, "one more try"
    assert set(os.listdir(store.root / "cells")) == set(store.keys()), "the dead left something"


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_store_that_cannot_be_written_ends_the_run(tmp_path: Path, engine: str) -> None:
    store = store_in(tmp_path)
    with pytest.raises(UsageError, match="cannot write to the store"):
        run_cells([cell_of(1, "break", (MODEL,)), cell_of(2), cell_of(3)], store, act, engine=engine)
    assert os.listdir(store.root / "moved" / MODEL.key)


SLOW = (cell_of(99, "sleep once"), *(cell_of(100 + number, "sleep", (MODEL,)) for number in range(30)))
SWEEP = """
import sys
sys.path.insert(0, sys.argv[1])
from test_bench_engines import SLOW, Store, act, run_cells
run_cells(SLOW, Store(sys.argv[2]), act, engine="processes", workers=2)
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_where_it_was(tmp_path: Path, blow: signal.Signals) -> None:
    store = store_in(tmp_path)
    command = [sys.executable, "-c", SWEEP, TESTS, str(store.root)]
    run = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_interrupts
    )
    try:
        wait_until(lambda: len(store.keys()) > 5)
    finally:
        if blow == signal.SIGINT:
            os.killpg(run.pid, blow)  # Ctrl-C goes to the workers too
        else:
            run.send_signal(blow)
        _, said = run.communicate(timeout=20)
    pids = {int(line.split()[1]) for line in (store.root / LOG).read_text().splitlines()}
    wait_until(lambda: not any(map(lives, pids)))
    finished = {cell for cell in SLOW if (row := store.read(cell.key)) is not None and row.status == "done"}
    assert 4 < len(finished) < len(SLOW)
    if blow == signal.SIGINT:
        assert said.count("KeyboardInterrupt") == 1, "the workers cried as well"
        assert set(os.listdir(store.root / "cells")) == set(store.keys()), "a clean stop leaves nothing"

    summary = run_cells(SLOW, store, act, engine="processes", workers=2)
    assert summary == Summary(done=len(SLOW) - len(finished), failed=0, skipped=len(finished) + 1)  # the model
    assert len(rows(store)) == len(SLOW) + 1
    assert {times(store, cell) for cell in finished} == {1}
    assert all(times(store, cell) <= 2 for cell in SLOW)


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("waited 20 s in vain")


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")  # a zombie that nobody has buried yet is dead
    return not (status.exists() and "State:\tZ" in status.read_text())


# --- how engines are asked


def test_workers_have_one_thread_and_this_process_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    store = store_in(tmp_path)
    cell = cell_of(1, "threads")
    run_cells([cell], store, act, engine="processes", workers=1)
    assert store.result(cell) == {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_memory_bounds_the_workers() -> None:
    sizes = [Processes(memory_per_cell_bytes=size)._size() for size in (1, 1 << 60)]
    assert sizes == [len(os.sched_getaffinity(0)), 1]
    assert Processes(workers=5, memory_per_cell_bytes=1 << 60)._size() == 5


def test_a_function_that_other_processes_cannot_find_is_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with pytest.raises(UsageError, match="must be a function of a module"):
        run_cells([MODEL], store, lambda cell, folder, store: {}, engine="processes")
    assert not (store.root / "cells").exists()


def test_workers_that_cannot_begin_end_the_run_and_blame_no_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    module = types.ModuleType("nowhere_to_be_found")
    exec("def act(cell, folder, store): return {}", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    store = store_in(tmp_path)
    with pytest.raises(UsageError, match="before it could begin .exit code 1"):
        run_cells([MODEL], store, module.act, engine="processes", workers=1)
    assert "nowhere_to_be_found" in capfd.readouterr().err
    assert store.keys() == ()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with pytest.raises(UnknownName, match="no engine named 'rai'. Did you mean 'ray'"):
        run_cells([MODEL], store, act, engine="rai")
    with pytest.raises(UsageError, match="one worker"):
        run_cells([MODEL], store, act, workers=2)
    with pytest.raises(UsageError, match="where the engine is made"):
        run_cells([MODEL], store, act, engine=Serial(), workers=1)
    for make in (
        lambda: Processes(workers=0),
        lambda: Processes(memory_per_cell_bytes=0),
        lambda: Ray(gpus_per_cell=-1),
    ):
        with pytest.raises(ParameterError):
            make()


def test_importing_the_benchmark_imports_neither_torch_nor_ray() -> None:
    code = "import sys, goodnet.bench; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cells_come_in_the_order_asked_for_each_after_its_needs(tmp_path: Path) -> None:
    models = [cell_of(number) for number in range(3)]
    audits = [cell_of(10 + number, needs=(model,)) for number, model in enumerate(models)]
    told: list[str] = []
    run_cells(audits, store_in(tmp_path), act, progress=lambda *one: told.append(one[3]))
    wanted = [f"{cell}: done" for pair in zip(models, audits, strict=True) for cell in pair]
    assert told == wanted
    assert all(first != second for first, second in pairwise(told))
