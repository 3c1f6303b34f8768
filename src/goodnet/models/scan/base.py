"""What every scanner shares: findings, bounded windows on a file, and the limits. Standard library only."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

MIB = 2**20
GIB = 2**30
JSON_LIMIT = 16 * MIB
"""Longest JSON text that is parsed: a layer graph or a safetensors header."""

Severity = Literal["executes", "unreadable", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing found in a file.

    Attributes:
        severity: "executes" (loading the usual way would run it), "unreadable" (goodnet does not read it) or "note".
        where: member, object path, byte offset, as far as they exist; "" for the file as a whole.
        what: the name of the culprit, such as "os.system", or "".
        message: one sentence for a person.
    """

    severity: Severity
    where: str
    what: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def inside(self, place: str) -> "Finding":
        """The same finding, seen from the container: its place comes after ``place``."""
        where = ", ".join(part for part in (place, self.where) if part)
        return replace(self, where=where)


class Broken(Exception):
    """Inside the scanners: this object cannot be read, the message says why. Becomes an "unreadable" finding."""


class Window(io.RawIOBase):
    """Bytes [start, start + size) of an open file, read-only; no read allocates more than the window holds.

    Attributes:
        size: in bytes.
        start: offset in the file on disk.
        path: the file on disk, or None if the bytes only exist in memory.
    """

    def __init__(self, file: BinaryIO, start: int, size: int, path: Path | None = None):
        self.file, self.start, self.size, self.path = file, start, size, path
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if origin + offset < 0:
            raise OSError("seek before the start of the window")
        self._position = origin + offset
        return self._position

    def read(self, count: int | None = -1) -> bytes:
        left = max(0, self.size - self._position)
        count = left if count is None or count < 0 else min(count, left)
        if not count:  # the position may be beyond what a disk can seek to
            return b""
        self.file.seek(self.start + self._position)
        data = self.file.read(count)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``; fewer at the end of the window."""
        self.seek(offset)
        return self.read(count)

    def part(self, start: int, size: int) -> "Window":
        """The window [start, start + size) of this one, cut at its end."""
        start = min(start, self.size)
        return Window(self.file, self.start + start, min(size, self.size - start), self.path)


def window_on(data: bytes) -> Window:
    """Bytes in memory as a window."""
    return Window(io.BytesIO(data), 0, len(data))


def findings_in(place: str, scan: Callable[..., list[Finding]], *arguments: Any) -> list[Finding]:
    """What ``scan(*arguments)`` finds, as seen from outside ``place``; Broken becomes a finding."""
    try:
        findings = scan(*arguments)
    except Broken as error:
        findings = [Finding("unreadable", "", "", str(error))]
    return [finding.inside(place) for finding in findings]


def is_bomb(declared: int, present: int) -> bool:
    """Whether ``declared`` bytes are absurd for a file that holds ``present`` bytes.

    64 MiB are always fine; beyond, up to 200 times the bytes present, and that only up to 4 GiB or four times them.
    """
    return declared > max(64 * MIB, min(200 * present, max(4 * GIB, 4 * present)))


def parse_json(text: bytes | str) -> Any:
    """The JSON value in ``text``.

    Raises:
        Broken: too long, nested too deeply, not UTF-8, NaN or infinity, a key twice, not JSON.
    """
    if len(text) > JSON_LIMIT:
        raise Broken(f"JSON text of {len(text):,} bytes; goodnet reads up to {JSON_LIMIT:,}")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_distinct_keys, parse_constant=_no_constant)
    except RecursionError:
        raise Broken("JSON nested too deeply") from None
    except ValueError as error:
        raise Broken(f"not JSON: {error}") from None


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object holds the same key twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
