"""The table of a quarantine, and the two kinds of database that hold it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from goodnet.errors import UsageError

_WAIT = 30.0  # seconds for another writer
_POSTGRESQL = ("postgres", "postgresql")

TABLE = sql.Table(
    "goodnet_quarantine",
    sql.MetaData(),
    sql.Column("key", sql.String(64), primary_key=True),
    sql.Column("mark", sql.String(16)),
    sql.Column("first_seen", sql.Double, nullable=False),
    sql.Column("last_seen", sql.Double, nullable=False),
    sql.Column("seen", sql.Integer, nullable=False),
    sql.Column("predicted", sql.Integer),
    sql.Column("suspicion", sql.Double, nullable=False),
    sql.Column("confidence", sql.Double, nullable=False),
    sql.Column("model", sql.String(64), nullable=False),
    sql.Column("size", sql.Integer, nullable=False),
    sql.Column("png", sql.LargeBinary, nullable=False),  # last, so that lists do not read over it
    sql.Index("goodnet_quarantine_oldest", "mark", "last_seen", "size"),
    sql.Index("goodnet_quarantine_newest", "first_seen", "key"),
)


def address(place: str) -> sql.URL:
    """``place`` as a URL: a path is one of an SQLite file.

    Raises:
        UsageError: it is a URL of another database.
    """
    if "://" not in place:
        return sql.URL.create("sqlite", database=place)
    try:
        url = sql.make_url(place)
    except ArgumentError as error:
        raise UsageError("the URL of the quarantine is none; give a path or postgresql://USER@HOST/NAME") from error
    if url.drivername in _POSTGRESQL:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise UsageError(f"a quarantine is kept in sqlite or postgresql, not in {url.drivername}")
    return url


def opened(url: sql.URL) -> sql.Engine:
    """An engine whose database has the table."""
    if url.get_backend_name() == "sqlite":
        engine = _sqlite(url)
    else:
        engine = sql.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    TABLE.metadata.create_all(engine)
    return engine


def _sqlite(url: sql.URL) -> sql.Engine:
    if url.database in (None, "", ":memory:"):
        raise UsageError("a quarantine in memory is lost with the process; give a path")
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # pictures of people are for the owner alone
    engine = sql.create_engine(url, connect_args={"timeout": _WAIT})
    sql.event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, _: object) -> None:
    """Readers do not wait for writers; what was committed survives a power cut; what was deleted is overwritten."""
    assert isinstance(connection, sqlite3.Connection)
    for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}")


@contextmanager
def told(place: str) -> Iterator[None]:
    """What a database raises, as an error of goodnet, without the pictures that were on their way."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"the quarantine {place} failed: {reason[0]}") from error
