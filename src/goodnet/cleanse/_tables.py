"""What a person gives in a table beside a training set: where samples came from, and which of them are known."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from goodnet.core.samples import Samples
from goodnet.errors import UnreadableData, UsageError

MARKS = ("clean", "poisoned")
_MOST_BYTES = 64 * 2**20

Rows = list[tuple[int, dict[str, str]]]  # (line in the file, column → text)


def sources_of(path: Path, samples: Samples, files: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """(int64 (N,) sources numbered in the order of their names, the names).

    Args:
        path: a CSV table with the columns "source" and "id" or "file".
        samples: of which set.
        files: the image file of each sample; empty where images are no files.

    Raises:
        UnreadableData: no such table, other columns, or a sample that it does not name.
        UsageError: it names files, and the images are none.
    """
    rows = _read(path, "sources")
    columns = set(rows[0][1]) if rows else set()
    key = next((name for name in ("id", "file") if name in columns), None)
    if key is None or "source" not in columns:
        raise UnreadableData(f"{path} should have the columns 'source' and 'id' or 'file' in its first line")
    if key == "file" and not files:
        raise UsageError(f"{path} names files, but these images are no files of their own; give a column 'id'")
    table = {row[key]: row["source"] for _, row in rows}
    wanted = list(files) if key == "file" else _ids(samples)
    missing = next((one for one in wanted if not table.get(one)), None)
    if missing is not None:
        raise UnreadableData(f"{path} names no source for the {key} {missing!r}")
    names = sorted(set(table.values()))
    numbers = {name: number for number, name in enumerate(names)}
    return torch.tensor([numbers[table[one]] for one in wanted]), tuple(names)


def marks_of(path: Path, samples: Samples, files: Sequence[str]) -> tuple[str, ...]:
    """What a person wrote beside each sample: "clean", "poisoned" or "".

    Args:
        path: samples.csv of a cleansing with its column "mark" filled in, or any table with "id" and "mark". Where it
            has "file" or "label" as well, these must be those of the set, so that no table of another set is heeded.
        samples, files: as in ``sources_of``.

    Raises:
        UnreadableData: no such table, other columns, or a line that is wrong; the message names it.
    """
    rows, found = _read(path, "marks"), dict.fromkeys(_ids(samples), "")
    assert samples.labels is not None
    known = {one: {"label": str(label)} for one, label in zip(found, samples.labels.tolist(), strict=True)}
    for one, file in zip(known, files, strict=False):  # none where images are no files
        known[one]["file"] = file
    if not rows or not {"id", "mark"} <= set(rows[0][1]):
        raise UnreadableData(f"{path} should have the columns 'id' and 'mark' in its first line, separated by commas")
    for line, row in rows:
        mark, one = (row["mark"] or "").strip(), (row["id"] or "").strip()
        if not mark:
            continue
        if mark not in MARKS:
            raise UnreadableData(f"{path}, line {line}: the mark is {mark!r}; write {' or '.join(MARKS)}, or nothing")
        if one not in found:
            raise UnreadableData(f"{path}, line {line}: the set that is cleansed has no image with the id {one!r}")
        if found[one]:
            raise UnreadableData(f"{path}, line {line}: the id {one} is marked twice")
        for column, own in known[one].items():
            if row.get(column, own) != own:
                raise UnreadableData(
                    f"{path}, line {line}: the {column} is {row[column]!r}, in the set it is {own!r}; is this table of "
                    "another set?"
                )
        found[one] = mark
    return tuple(found.values())


def _ids(samples: Samples) -> list[str]:
    assert samples.ids is not None
    return [str(one) for one in samples.ids.tolist()]


def _read(path: Path, what: str) -> Rows:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UnreadableData(f"{path} is too large for a table of {what}")
        with path.open(newline="", encoding="utf-8-sig") as stream:  # spreadsheets begin with a byte order mark
            reader = csv.DictReader(stream)
            return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableData(f"{path} cannot be read as a table: {error}") from None
