"""Folders of results that appear complete or not at all, and never in place of what somebody else put there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from goodnet.errors import UsageError


def require_own(folder: Path, contents: Collection[str], marks: Collection[str]) -> None:
    """Check that ``folder`` may be replaced: it is new, empty, or nothing but earlier results of the same kind.

    Args:
        folder: where results shall go.
        contents: the names that results of this kind consist of.
        marks: one of them at least must be there; names that nobody else would choose.

    Raises:
        UsageError: it is something else, or the folder in which this process runs.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder for the results")
    if folder.resolve() == Path.cwd():
        raise UsageError("results cannot take the place of the current folder; give another one")
    names = {entry.name for entry in folder.iterdir()}
    strange = sorted(names - set(contents)) or sorted(names if not names & set(marks) else ())
    if strange:
        raise UsageError(f"{folder} holds {strange[0]!r}, which is not ours to replace; give a new or an empty folder")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill. When the block ends well it takes the place of ``folder``; else it goes away.

    What was in ``folder`` goes only after the new one is in place; see ``require_own`` for what may.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield made
        made.chmod(0o755)
        flush_all(made)
        _put(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _put(made: Path, folder: Path) -> None:
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)) if folder.exists() else None
    if old is not None:
        folder.rename(old)  # onto an empty folder
    made.rename(folder)
    flush(folder.parent)
    if old is not None:
        shutil.rmtree(old)


def flush_all(made: Path) -> None:
    """Have the disk hold a folder and everything in it."""
    for folder, _, files in os.walk(made):
        for part in (*files, ""):
            flush(Path(folder) / part)


def flush(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
