"""Pictures of a quarantine on their way out: a folder that ``goodnet.load_data`` reads, or the same as a zip file."""

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from goodnet.core.whole_folder import require_own, whole_folder
from goodnet.errors import UsageError
from goodnet.serve.quarantine import MARKS, UNMARKED, Entry, Quarantine

LISTING = "quarantine.json"


def export_folder(quarantine: Quarantine, folder: str | os.PathLike[str], marks: Sequence[str] = ("poisoned",)) -> int:
    """Write the pictures with one of ``marks``, a folder for each mark, which ``goodnet.load_data`` takes for a class.

    ``quarantine.json`` beside them has what is known about each. All appears complete or not at all.

    Returns:
        How many pictures there are.

    Raises:
        UsageError: no picture has one of these marks, or ``folder`` is something else than an earlier export.
    """
    folder = Path(folder)
    require_own(folder, (*MARKS, UNMARKED, LISTING), (LISTING,))
    entries = []
    with whole_folder(folder) as made:
        for entry, png in quarantine.pictures(marks):
            path = made / _name(entry)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png)
            entries.append(entry)
        (made / LISTING).write_text(_listing(_some(entries, marks)), encoding="utf-8")
    return len(entries)


def export_zip(quarantine: Quarantine, file: IO[bytes], marks: Sequence[str] = ("poisoned",)) -> int:
    """As ``export_folder``, into a zip file; the same errors."""
    entries = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # PNG files do not get smaller
        for entry, png in quarantine.pictures(marks):
            archive.writestr(f"quarantine/{_name(entry)}", png)
            entries.append(entry)
        archive.writestr(f"quarantine/{LISTING}", _listing(_some(entries, marks)))
    return len(entries)


def _name(entry: Entry) -> str:
    return f"{entry.mark or UNMARKED}/{entry.key}.png"


def _some(entries: list[Entry], marks: Sequence[str]) -> list[Entry]:
    if not entries:
        raise UsageError(f"no picture in the quarantine is marked {' or '.join(marks)}")
    return entries


def _listing(entries: Sequence[Entry]) -> str:
    return json.dumps({"schema": 1, "images": [asdict(entry) for entry in entries]}, indent=1, allow_nan=False) + "\n"
