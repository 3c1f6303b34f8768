"""The store of a benchmark: a finished cell is there whole or not at all, and what is damaged is not trusted."""

import errno
import hashlib
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from goodnet.bench import Cell, Record, Store, run_cells
from goodnet.errors import UnreadableFile, UsageError

CELL = Cell("model", {"epochs": 2, "data": "digits", "attack": {"name": "badnets", "size": 4}})


def put(store: Store, cell: Cell = CELL, value: float = 0.5) -> None:
    with store.scratch(cell.key) as folder:
        (folder / "weights").mkdir()
        (folder / "weights" / "model.bin").write_bytes(b"weights")
        store.put(cell, folder, {"accuracy": value}, seconds=1.5)


def entries(store: Store) -> list[str]:
    return sorted(os.listdir(store.root / "cells"))


def is_whole(store: Store, cell: Cell = CELL) -> bool:
    record = store.read(cell.key)
    assert record is not None
    assert store.result(cell) == {"accuracy": 0.5}
    return (store.folder(cell.key) / "weights" / "model.bin").read_bytes() == b"weights"


# --- names


def test_the_key_is_the_hash_of_schema_kind_and_parameters() -> None:
    text = '[1,"model",{"attack":{"name":"badnets","size":4},"data":"digits","epochs":2}]'
    assert CELL.key == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_cells_are_the_same_whatever_the_order_of_their_parameters() -> None:
    turned = Cell("model", {"attack": {"size": 4, "name": "badnets"}, "data": "digits", "epochs": 2}, (CELL,))
    assert turned == CELL
    assert len({turned, CELL}) == 1
    assert Cell("audit", CELL.parameters) != CELL
    assert Cell("model", {**CELL.parameters, "epochs": 3}) != CELL


def test_a_cell_keeps_its_parameters_when_the_caller_changes_his() -> None:
    mine = {"sizes": [1, 2]}
    cell = Cell("model", mine)
    mine["sizes"].append(3)
    assert cell.parameters == {"sizes": [1, 2]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"bytes"])
def test_parameters_that_are_no_json_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="'model' cell must be JSON"):
        Cell("model", {"x": value})  # type: ignore[dict-item]


# --- what is stored


def test_a_finished_cell_is_read_back_with_its_files(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.read(CELL.key) is None
    assert store.keys() == ()
    assert not store.root.exists(), "reading made something"
    put(store)
    assert is_whole(store)
    assert store.keys() == (CELL.key,)
    assert entries(store) == [CELL.key], "something was left beside it"
    record = store.read(CELL.key)
    assert record is not None
    assert (record.kind, record.parameters, record.status) == ("model", CELL.parameters, "done")
    assert (record.seconds, record.error) == (1.5, None)
    assert record.peak_memory_bytes > 1 << 20
    assert record.versions["python"] == platform.python_version()


def test_the_file_holds_these_keys_and_no_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store)
    row = json.loads((store.folder(CELL.key) / "result.json").read_text())
    assert list(row) == [
        "schema", "kind", "parameters", "key", "status", "result", "error", "seconds", "peak_memory_bytes", "versions",
        "git", "finished",
    ]  # fmt: skip


def test_a_relative_store_stays_where_it_is_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    put(store)
    assert Store(tmp_path / "store").keys() == (CELL.key,)


def test_what_is_not_done_has_no_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UsageError, match="not done"):
        store.result(CELL)
    store.fail(CELL, "ValueError: no")
    with pytest.raises(UsageError, match="not done"):
        store.result(CELL)


def test_of_two_that_finish_a_cell_the_first_wins_and_a_failure_gives_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.fail(CELL, "ValueError: first")
    store.fail(CELL, "ValueError: second")
    record = store.read(CELL.key)
    assert record is not None
    assert record.error == "ValueError: second"
    put(store)
    put(store, value=0.25)
    store.fail(CELL, "ValueError: too late")
    assert is_whole(store)
    assert entries(store) == [CELL.key]


def in_child(work: Callable[[], None]) -> int:
    """The process id of a child that does ``work`` and leaves with 0 if nothing was raised."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def test_many_processes_that_finish_the_same_cells_do_not_disturb_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cells = [Cell("model", {"seed": seed}) for seed in range(15)]

    def work() -> None:
        for cell in cells:
            store.fail(cell, "ValueError: no")
            put(store, cell)
            store.fail(cell, "ValueError: no")

    children = [in_child(work) for _ in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert entries(store) == sorted(cell.key for cell in cells)
    assert all(is_whole(store, cell) for cell in cells)


# --- kills, full disks, damage


def interrupt(step: int, strike: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Call ``strike`` before the ``step``-th time that the store touches the disk in a way that lasts."""
    calls = 0

    def struck(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step:
                strike()
            return real(*arguments, **options)

        return call

    for owner, name in ((os, "fsync"), (os, "rename"), (os, "mkdir"), (Path, "write_text"), (Path, "chmod")):
        patch.setattr(owner, name, struck(getattr(owner, name)))


STEPS = 26  # more than there are


@pytest.mark.parametrize("before", ["nothing", "failed"])
def test_a_kill_at_any_step_leaves_nothing_or_all(tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = set()
    for step in range(1, STEPS):
        store = Store(tmp_path / str(step))
        if before != "nothing":
            store.fail(CELL, "ValueError: before")

        def work(store: Store = store, step: int = step) -> None:
            interrupt(step, lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)
            put(store)

        ends.add(os.waitpid(in_child(work), 0)[1])
        store.sweep()
        if (store.root / "cells").exists():
            assert set(entries(store)) <= {CELL.key}
        record = store.read(CELL.key)
        assert record is None or record.error == "ValueError: before" or is_whole(store)
        put(store)
        assert is_whole(store)
    assert ends == {0, signal.SIGKILL}, "no kill came after the last step, or none before"


def test_a_disk_that_is_full_at_any_step_leaves_nothing(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    refused = 0
    for step in range(1, STEPS):
        store = Store(tmp_path / str(step))
        with pytest.MonkeyPatch.context() as patch:
            interrupt(step, full, patch)
            try:
                put(store)
            except UsageError as error:
                refused += 1
                assert "cannot write to the store" in str(error)  # noqa: PT017
                assert "No space left" in str(error)  # noqa: PT017
            except OSError:  # the cell's own file
                refused += 1
        if (store.root / "cells").exists() and entries(store):
            assert is_whole(store)
    assert 5 < refused < STEPS - 1


DAMAGES: dict[str, Callable[[dict[str, object]], object]] = {
    "other parameters": lambda row: {**row, "parameters": {"epochs": 3}},
    "another kind": lambda row: {**row, "kind": "audit"},
    "another key": lambda row: {**row, "key": "0" * 32},
    "another cell": lambda row: {**row, "kind": "audit", "key": Cell("audit", CELL.parameters).key},
    "no result": lambda row: {**row, "result": None},
    "a false failure": lambda row: {**row, "status": "failed"},
    "an unknown schema": lambda row: {**row, "schema": 2},
    "a key too many": lambda row: {**row, "more": 1},
    "a key too few": lambda row: {name: row[name] for name in row if name != "seconds"},
    "nan": lambda row: {**row, "parameters": {"epochs": float("nan")}},
    "a list": lambda row: [row],
}


@pytest.mark.parametrize("damage", [*DAMAGES, "truncated", "empty", "missing", "bytes"])
def test_a_damaged_result_is_reported_and_computed_again(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    put(store, value=0.25)
    path = store.folder(CELL.key) / "result.json"
    text = path.read_text()
    match damage:
        case "truncated":
            path.write_text(text[: len(text) // 2])
        case "empty":
            path.write_text("")
        case "missing":
            path.unlink()
        case "bytes":
            path.write_bytes(b"\xff\x00" * 50)
        case _:
            path.write_text(json.dumps(DAMAGES[damage](json.loads(text))))
    with pytest.raises(UnreadableFile, match=str(path)):
        store.read(CELL.key)
    summary = run_cells([CELL], store, lambda cell, folder, store: {"accuracy": 0.5})
    assert (summary.done, summary.skipped) == (1, 0)
    assert len(summary.damaged) == 1
    assert str(path) in summary.damaged[0]
    assert store.result(CELL) == {"accuracy": 0.5}
    assert entries(store) == [CELL.key]


def test_the_sweep_removes_what_the_dead_of_this_machine_left_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store)
    dead = in_child(lambda: None)
    os.waitpid(dead, 0)
    host = platform.node()
    gone = f".{CELL.key}.{dead}.{host}.abc123"
    kept = (f".{CELL.key}.{os.getpid()}.{host}.abc123", f".{CELL.key}.{dead}.{host}x.abc123", ".nfs0001", "notes")
    for name in (gone, *kept):
        (tmp_path / "cells" / name).mkdir()
        (tmp_path / "cells" / name / "half").write_text("")
    store.sweep()
    assert entries(store) == sorted([CELL.key, *kept])
    assert store.keys() == (CELL.key,)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write to the store .*file"):
        put(Store(tmp_path / "file"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can forget a peak")
def test_peak_memory_is_that_of_the_cell(tmp_path: Path) -> None:
    store = Store(tmp_path)
    peaks = []
    for size in (200, 1):
        run_cells([Cell("hold", {"size": size})], store, hold)
        record = store.read(Cell("hold", {"size": size}).key)
        assert isinstance(record, Record)
        peaks.append(record.peak_memory_bytes)
    assert peaks[0] - peaks[1] > 150 << 20


def hold(cell: Cell, folder: Path, store: Store) -> dict[str, int]:
    size = cell.parameters["size"]
    assert isinstance(size, int)
    return {"held": len(b"x" * (size << 20))}
