"""How the hostile files of the other test_file_safety modules are made: by hand, byte by byte. Holds no tests."""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from goodnet.errors import GoodnetError, UnreadableModel, UnsafeFile
from goodnet.models.file_safety import require_safe

LEGACY_HEAD = (
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # magic number
    b"\x80\x02M\xe9\x03."  # protocol version
    b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."  # system facts
)
EXECUTES, UNREADABLE = 1, 2


@dataclass(frozen=True)
class Hostile:
    """A hostile file.

    Attributes:
        what: for the table in docs/security.md.
        make: (folder to write in, path that the payload would create) → the file.
        says: a piece of what goodnet says.
        exit_code: 1 for UnsafeFile, 2 for UnreadableModel.
    """

    what: str
    make: Callable[[Path, Path], Path]
    says: str
    exit_code: int


def check(hostile: Hostile, folder: Path) -> None:
    """The file is refused as announced, and the payload did not run."""
    marker = folder / "marker"
    (folder / "work").mkdir()
    path = hostile.make(folder / "work", marker)
    with pytest.raises(GoodnetError) as caught:
        require_safe(path)
    assert type(caught.value) is {EXECUTES: UnsafeFile, UNREADABLE: UnreadableModel}[hostile.exit_code]
    assert hostile.says in str(caught.value)
    assert path.name in str(caught.value)
    assert not marker.exists()


def file_of(make: Callable[[Path], bytes]) -> Callable[[Path, Path], Path]:
    """A file with the bytes that ``make(marker)`` gives."""

    def write(folder: Path, marker: Path) -> Path:
        path = folder / "model.bin"
        path.write_bytes(make(marker))
        return path

    return write


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """Pickle operations that call module.name(*arguments)."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n(" + b"".join(arguments) + b"tR"


def pickled(operations: bytes) -> bytes:
    return b"\x80\x02" + operations + b"."


def system(marker: Path) -> bytes:
    """Pickle operations that would create ``marker``."""
    return called("os", "system", text(f"touch {marker}"))


def storage(count: int = 4, key: str = "0", kind: str = "FloatStorage") -> bytes:
    number = b"\x8a\x08" + struct.pack("<q", count)
    return b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number + b"tQ"


def tensor(stored: bytes, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,), offset: int = 0) -> bytes:
    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    flags = b"\x89" + called("collections", "OrderedDict")
    return called("torch._utils", "_rebuild_tensor_v2", stored, number(offset), numbers(size), numbers(stride), flags)


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def torch_zip(data: bytes, members: Mapping[str, bytes] | None = None) -> bytes:
    """A torch.save archive with this data.pkl, and a storage "0" of 16 bytes unless other members are given."""
    rest = {"m/data/0": bytes(16)} if members is None else members
    return zipped({"m/data.pkl": data, "m/version": b"3\n", **rest})


def torch_legacy(data: bytes, keys: bytes = pickled(b"]"), storages: bytes = b"") -> bytes:
    return LEGACY_HEAD + data + keys + storages


def plain_tensor_zip() -> bytes:
    """A torch.save archive that is in order: the hostile ones are made from it."""
    return torch_zip(pickled(b"}" + text("weight") + tensor(storage()) + b"s"))
