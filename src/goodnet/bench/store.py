"""Store: one folder for each finished cell, which is there whole or not at all."""

import contextlib
import errno
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from goodnet.bench._machine import git_commit, library_versions, peak_memory_bytes
from goodnet.bench.record import Cell, Record
from goodnet.core.whole_folder import flush, flush_all
from goodnet.errors import UnreadableFile, UsageError

RESULT = "result.json"
_KEY = re.compile(r"[0-9a-f]{32}")
_SCRATCH = re.compile(r"\.[0-9a-f]{32}\.(?P<pid>\d+)\.(?P<host>.+)\.[^.]+")


class Store:
    """``<root>/cells/<key>/`` with ``result.json`` and the files that the cell made; the first write makes the root.

    A folder is written beside its place and renamed into it, so that whoever is killed leaves nothing, or all. Any
    number of processes may write, also on several machines that share the file system: of two that finish the same
    cell, one wins. There are no locks: a cell that two runs compute at once is computed twice, which is no error.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root).absolute()  # workers may start in another folder
        self._cells = self.root / "cells"

    def folder(self, key: str) -> Path:
        """Where the files of a finished cell are."""
        return self._cells / key

    def keys(self) -> tuple[str, ...]:
        """The keys of all finished cells, sorted."""
        return tuple(sorted(name for name in self._names() if _KEY.fullmatch(name)))

    def read(self, key: str) -> Record | None:
        """The record of a finished cell, or None.

        Raises:
            UnreadableFile: ``result.json`` is missing, truncated, edited or of another cell.
        """
        path = self.folder(key) / RESULT
        try:
            record = Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError, UsageError) as error:
            if not path.parent.exists():
                return None
            raise UnreadableFile(f"{path} is damaged; the next run that wants it computes it again") from error
        if record.key != key:
            raise UnreadableFile(f"{path} belongs to another cell, {record.key}; the next run computes it again")
        return record

    def result(self, cell: Cell) -> dict[str, JsonValue]:
        """What a cell came to.

        Raises:
            UsageError: it is not done.
            UnreadableFile: see ``read``.
        """
        record = self.read(cell.key)
        if record is None or record.result is None:
            raise UsageError(f"{cell} is not done; a cell that reads it must name it in its needs")
        return record.result

    @contextlib.contextmanager
    def scratch(self, key: str) -> Iterator[Path]:
        """An empty folder for what a cell makes; goes away after the block unless ``put`` put it in place."""
        with self._writing():
            self._cells.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix=f".{key}.{os.getpid()}.{_host()}.", dir=self._cells))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def put(self, cell: Cell, made: Path, result: dict[str, JsonValue], seconds: float) -> None:
        """Make the scratch folder ``made`` the finished cell, with its ``result``.

        Raises:
            UsageError: the store cannot be written.
        """
        self._put(_record(cell, result, None, seconds), made)

    def fail(self, cell: Cell, error: str, seconds: float = 0.0) -> None:
        """Record that a cell failed, and why: "Type: sentence". A cell that somebody finished meanwhile stays done.

        Raises:
            UsageError: the store cannot be written.
        """
        with self.scratch(cell.key) as empty:
            self._put(_record(cell, None, error, seconds), empty)

    def sweep(self) -> None:
        """Remove what killed writers left: scratch folders of processes of this machine that are no more."""
        for name in self._names():
            match = _SCRATCH.fullmatch(name)
            if match and match["host"] == _host() and not _lives(int(match["pid"])):
                shutil.rmtree(self._cells / name, ignore_errors=True)

    def _names(self) -> list[str]:
        return os.listdir(self._cells) if self._cells.is_dir() else []

    def _put(self, record: Record, made: Path) -> None:
        with self._writing():
            (made / RESULT).write_text(record.model_dump_json(by_alias=True, indent=1) + "\n")
            made.chmod(0o755)
            flush_all(made)
            while not self._place(made, record.key):
                pass
            flush(self._cells)

    def _place(self, made: Path, key: str) -> bool:
        """Rename ``made`` to its place, where a done cell stays; False if the place must be tried again."""
        place = self.folder(key)
        try:
            made.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return True
        with contextlib.suppress(UnreadableFile):
            there = self.read(key)
            if there is not None and there.status == "done":
                return True
        with self.scratch(key) as aside, contextlib.suppress(FileNotFoundError):  # somebody else was faster
            place.rename(aside)
        return False

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot write to the store {self.root}: {error.strerror}; finished cells are kept, run again"
            ) from error


def _record(cell: Cell, result: dict[str, JsonValue] | None, error: str | None, seconds: float) -> Record:
    return Record(
        schema=1,
        kind=cell.kind,
        parameters=dict(cell.parameters),
        key=cell.key,
        status="failed" if result is None else "done",
        result=result,
        error=error,
        seconds=round(seconds, 3),
        peak_memory_bytes=peak_memory_bytes() if seconds else 0,
        versions=library_versions(),
        git=git_commit(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _host() -> str:
    return re.sub(r"[^\w.-]", "-", platform.node()) or "unnamed"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    status = Path(f"/proc/{pid}/status")  # a zombie that nobody has buried yet writes no more
    return not (status.exists() and "State:\tZ" in status.read_text())
