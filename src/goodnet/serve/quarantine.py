"""Quarantine: pictures that were answered N, kept for people to look at and for repairs to learn from.

What is kept is what the network saw: uint8 pixels after decoding and resizing, as PNG, addressed by their sha256. So
the bytes of strangers (with their metadata, and whatever else hides in them) are never stored, one picture sent in many
encodings is one entry, and no entry is larger than a model's input.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from torch import Tensor

from goodnet.core.params import check_ranges, param
from goodnet.errors import UsageError
from goodnet.serve._database import TABLE, address, opened, told
from goodnet.serve._pictures import key_of, to_png

MARKS = ("clean", "poisoned", "unsure")
UNMARKED = "unmarked"

_DAY = 86_400.0
_AT_ONCE = 500  # rows that one statement deletes or lists
_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}  # both know ON CONFLICT
_SHOWN = [column for column in TABLE.c if column.name != "png"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a quarantine keeps. Of what is too much, the oldest pictures without a mark go first."""

    days: float = param(90.0, low=0.0, doc="a picture not sent for so long goes, marked or not; 0 keeps it for ever")
    most_images: int = param(10_000, low=1, doc="pictures that are kept")
    most_bytes: int = param(256 * 2**20, low=1, doc="bytes that their PNG files take")

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Caught:
    """A picture that was answered N: uint8 (C, H, W), what the suspect network answers, the scores, and who judged."""

    pixels: Tensor
    predicted: int | None
    suspicion: float
    confidence: float
    model: str

    @cached_property
    def key(self) -> str:
        """What it is called in the quarantine."""
        return key_of(self.pixels)


@dataclass(frozen=True)
class Entry:
    """What a quarantine knows about one picture; times in seconds since 1970, ``seen`` how often it was sent."""

    key: str
    mark: str | None
    first_seen: float
    last_seen: float
    seen: int
    predicted: int | None
    suspicion: float
    confidence: float
    model: str
    size: int


@dataclass(frozen=True)
class Contents:
    """How many pictures are held, by mark (those without one under "unmarked"), and the bytes of their PNG files."""

    counts: dict[str, int]
    bytes: int


class Quarantine:
    """A table of pictures in SQLite or PostgreSQL; any number of threads and processes may use one at once.

    Args:
        url: a path of an SQLite file, or a URL of SQLAlchemy: ``sqlite:///...`` or ``postgresql://...``.
        limits: how much is kept.
        clock: seconds since 1970.

    A picture and what is known about it are one row, so a row is there whole or not at all; when ``add`` returns, the
    database has written it to disk, and no kill takes it back.

    Raises:
        UsageError: the database cannot be opened, or is of another kind; also from every method, when it fails.
    """

    def __init__(
        self, url: str | os.PathLike[str], limits: Limits = Limits(), *, clock: Callable[[], float] = time.time
    ):
        self.limits = limits
        self._clock = clock
        where = address(os.fspath(url))
        self.place = where.render_as_string(hide_password=True)
        self._insert = _INSERT[where.get_backend_name()]
        with told(self.place):
            self._engine = opened(where)
        self.sweep()

    def add(self, caught: Sequence[Caught]) -> frozenset[str]:
        """Keep pictures; returns the keys of all that are held now, which the limits may make fewer than were given.

        A picture that is there already keeps its mark, and is counted once more.
        """
        now = self._clock()
        rows: dict[str, dict[str, Any]] = {}
        for one in caught:
            key = one.key
            seen = rows[key]["seen"] + 1 if key in rows else 1
            png = to_png(one.pixels)
            rows[key] = {
                "key": key,
                "first_seen": now,
                "last_seen": now,
                "seen": seen,
                "predicted": one.predicted,
                "suspicion": one.suspicion,
                "confidence": one.confidence,
                "model": one.model,
                "size": len(png),
                "png": png,
            }
        with self._writing() as connection:
            for key in sorted(rows):  # in one order, so that two writers never wait for each other
                fresh = self._insert(TABLE).values(rows[key])
                latest = ("last_seen", "predicted", "suspicion", "confidence", "model")
                changed = {name: fresh.excluded[name] for name in latest} | {"seen": TABLE.c.seen + rows[key]["seen"]}
                connection.execute(fresh.on_conflict_do_update(index_elements=[TABLE.c.key], set_=changed))
            self._shrink(connection, now)
            held = connection.execute(sql.select(TABLE.c.key).where(TABLE.c.key.in_(list(rows))))
            return frozenset(held.scalars())

    def sweep(self) -> None:
        """Apply the limits now; ``add`` does so whenever it adds something."""
        with self._writing() as connection:
            self._shrink(connection, self._clock())

    def entries(
        self,
        *,
        marks: Sequence[str] = (),
        predicted: int | None = None,
        after: tuple[float, str] | None = None,
        limit: int = 60,
    ) -> tuple[Entry, ...]:
        """Entries, the newest first: those with one of ``marks`` ("unmarked" among them; none for all).

        Args:
            marks: of ``MARKS`` and ``UNMARKED``.
            predicted: only those that the suspect network answers so.
            after: ``first_seen`` and key of the last entry that was seen, to go on behind it.
            limit: at most so many.
        """
        query = sql.select(*_SHOWN).order_by(TABLE.c.first_seen.desc(), TABLE.c.key.desc()).limit(limit)
        if marks:
            query = query.where(_marked(marks))
        if predicted is not None:
            query = query.where(TABLE.c.predicted == predicted)
        if after is not None:
            query = query.where(sql.tuple_(TABLE.c.first_seen, TABLE.c.key) < sql.tuple_(*map(sql.literal, after)))
        with self._reading() as connection:
            return tuple(Entry(*row) for row in connection.execute(query))

    def png(self, key: str) -> bytes | None:
        """The picture as PNG, or None where it is not held."""
        with self._reading() as connection:
            found: bytes | None = connection.execute(sql.select(TABLE.c.png).where(TABLE.c.key == key)).scalar()
        return found

    def mark(self, key: str, mark: str | None) -> bool:
        """Say what a person thinks of a picture, None to take it back; False where the picture is not held.

        Raises:
            UsageError: there is no such mark.
        """
        if mark is not None and mark not in MARKS:
            raise UsageError(f"a mark is one of {', '.join(MARKS)}, got {mark!r}")
        with self._writing() as connection:
            done = connection.execute(sql.update(TABLE).where(TABLE.c.key == key).values(mark=mark))
            return bool(done.rowcount)

    def contents(self) -> Contents:
        """How many pictures there are of each mark, and what they weigh."""
        query = sql.select(TABLE.c.mark, sql.func.count(), sql.func.sum(TABLE.c.size)).group_by(TABLE.c.mark)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        counts = dict.fromkeys((UNMARKED, *MARKS), 0) | {mark or UNMARKED: count for mark, count, _ in rows}
        return Contents(counts, sum(size for _, _, size in rows))

    def pictures(self, marks: Sequence[str]) -> Iterator[tuple[Entry, bytes]]:
        """Every entry with one of these marks, the newest first, and its PNG file; few of them in memory at a time."""
        after = None
        while part := self.entries(marks=marks, after=after, limit=_AT_ONCE):
            for entry in part:
                if (png := self.png(entry.key)) is not None:  # it may have gone meanwhile
                    yield entry, png
            after = part[-1].first_seen, part[-1].key

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _shrink(self, connection: sql.Connection, now: float) -> None:
        """Delete what is too old, then the oldest without a mark until the rest is within the limits."""
        if self.limits.days:
            connection.execute(sql.delete(TABLE).where(TABLE.c.last_seen < now - self.limits.days * _DAY))
        count, size = connection.execute(sql.select(sql.func.count(), sql.func.sum(TABLE.c.size))).one()
        oldest = sql.select(TABLE.c.key, TABLE.c.size).where(TABLE.c.mark.is_(None))
        oldest = oldest.order_by(TABLE.c.last_seen, TABLE.c.key).limit(_AT_ONCE)
        while self._too_much(count, size):
            gone = []
            for key, weight in connection.execute(oldest):
                if not self._too_much(count, size):
                    break
                gone.append(key)
                count, size = count - 1, size - weight
            if not gone:
                return  # what is left has marks, and a person's work is not thrown away
            connection.execute(sql.delete(TABLE).where(TABLE.c.key.in_(gone), TABLE.c.mark.is_(None)))

    def _too_much(self, count: int, size: int) -> bool:
        return count > self.limits.most_images or (size or 0) > self.limits.most_bytes

    @contextmanager
    def _writing(self) -> Iterator[sql.Connection]:
        with told(self.place), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sql.Connection]:
        with told(self.place), self._engine.connect() as connection:
            yield connection


def _marked(marks: Sequence[str]) -> sql.ColumnElement[bool]:
    unknown = sorted(set(marks) - {*MARKS, UNMARKED})
    if unknown:
        raise UsageError(f"a mark is one of {', '.join((*MARKS, UNMARKED))}, got {unknown[0]!r}")
    named = TABLE.c.mark.in_([mark for mark in marks if mark != UNMARKED])
    return named | TABLE.c.mark.is_(None) if UNMARKED in marks else named
