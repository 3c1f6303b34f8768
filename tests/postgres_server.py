"""A real PostgreSQL server for tests: in a temporary folder, on a socket there, run by nobody."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_USER = "nobody"  # who runs it where the tests are run by root, whom PostgreSQL refuses


def _program(name: str) -> str | None:
    link = shutil.which("postgres")
    beside = Path(link).resolve().parent / name if link else None
    return str(beside) if beside is not None and beside.exists() else shutil.which(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Gives the URL of a new, empty database, each time it is called."""
    pg_ctl, initdb, psycopg = _program("pg_ctl"), _program("initdb"), pytest.importorskip("psycopg")
    if pg_ctl is None or initdb is None:
        pytest.skip("needs PostgreSQL: postgres, pg_ctl and initdb are not there")
    user = pwd.getpwnam(_USER) if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # short: the path of a socket has 107 characters at most

    def run(*command: str) -> None:
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()} if user else {}
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120, **identity)

    try:
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        run(initdb, "-D", f"{folder}/data", "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        options = f"-c listen_addresses= -c unix_socket_directories={folder}"
        run(pg_ctl, "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield _maker(psycopg, folder)
        finally:
            run(pg_ctl, "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _maker(psycopg: object, folder: Path) -> Callable[[], str]:
    made: list[str] = []

    def make() -> str:
        made.append(f"q{len(made)}")
        with psycopg.connect(f"host={folder} user=tester dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {made[-1]}")
        return f"postgresql://tester@/{made[-1]}?host={folder}"

    return make
