"""Hostile containers: zip archives that two unzippers would read differently, bombs, and pickles hidden inside."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from test_file_safety_helpers import (
    EXECUTES,
    LEGACY_HEAD,
    UNREADABLE,
    Hostile,
    check,
    file_of,
    pickled,
    plain_tensor_zip,
    system,
    torch_zip,
    zipped,
)

_LOCAL, _DIRECTORY, _END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_HARMLESS = pickled(b"}")


def _edited(*changes: tuple[bytes, int, bytes], archive: bytes = b"") -> Callable[[Path, Path], Path]:
    """A sound archive in which bytes behind the first record of a kind are replaced: (record, offset, new bytes)."""

    def make(_: Path) -> bytes:
        content = bytearray(archive or plain_tensor_zip())
        for record, offset, new in changes:
            start = content.find(record) + offset
            content[start : start + len(new)] = new
        return bytes(content)

    return file_of(make)


def _with_member(name: str, make: Callable[[Path], bytes]) -> Callable[[Path, Path], Path]:
    return file_of(lambda marker: torch_zip(_HARMLESS, {name: make(marker)}))


def _special_member(attributes: int = 0, extra: bytes = b"", name: str = "m/link") -> Callable[[Path, Path], Path]:
    def make(_: Path) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            member = zipfile.ZipInfo(name)
            member.external_attr, member.extra = attributes, extra
            archive.writestr(member, b"/etc/passwd")
        return buffer.getvalue()

    return file_of(make)


def _undirected(marker: Path) -> bytes:
    """The first member is in no directory: only a reader that goes from header to header sees it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {
            "m/data.pk_": pickled(system(marker)),
            "m/data.pkl": _HARMLESS,
            "m/version": b"3",
        }.items():
            archive.writestr(name, content)
        del archive.filelist[0]
    return buffer.getvalue()


def _two_end_records() -> bytes:
    """A sound archive with the 64-bit end record that torch writes."""
    narrow = plain_tensor_zip()
    entries, size, start = struct.unpack("<H2L", narrow[-12:-2])
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(narrow) - 22, 1)
    return narrow[:-22] + wide + locator + narrow[-22:]


def _tar(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("pickle")
        content = pickled(system(marker))
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _tar_and_legacy(_: Path) -> bytes:
    """A torch file of before 1.6 whose first 512 bytes are a tar header too: torch.load tries tar first."""
    block = bytearray((LEGACY_HEAD + b"\x80\x02X" + struct.pack("<L", 600)).ljust(512, b"\0"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(600) + b"." + pickled(b"]")


CASES = {
    "hidden-pickle": Hostile(
        "a pickle beside `data.pkl`, under an innocent name",
        _with_member("m/README", lambda marker: pickled(system(marker))),
        "m/README, byte 2: would call os.system",
        EXECUTES,
    ),
    "wrong-checksum": Hostile(
        "a payload whose checksum is wrong, which torch does not mind",
        file_of(lambda marker: torch_zip(pickled(system(marker)), {}).replace(b"touch ", b"touch\t", 1)),
        "m/data.pkl, byte 2: would call os.system",
        EXECUTES,
    ),
    "zip-in-zip": Hostile(
        "a pickle in a zip archive in the zip archive",
        _with_member("m/more.zip", lambda marker: zipped({"a.txt": pickled(system(marker))})),
        "m/more.zip, a.txt, byte 2: would call os.system",
        EXECUTES,
    ),
    "unknown-zip": Hostile(
        "a zip archive of no known kind, with a pickle",
        file_of(lambda marker: zipped({"weights": pickled(system(marker))}, zipfile.ZIP_DEFLATED)),
        "weights, byte 2: would call os.system",
        EXECUTES,
    ),
    "python-in-zip": Hostile(
        "Python source in a zip archive", file_of(lambda _: zipped({"net.py": b"import os"})), "Python code", EXECUTES
    ),
    "torchscript": Hostile(
        "a TorchScript archive",
        file_of(lambda _: zipped({"m/data.pkl": _HARMLESS, "m/code/net.py": b"", "m/constants.pkl": _HARMLESS})),
        "a TorchScript program",
        EXECUTES,
    ),
    "torch-package": Hostile(
        "a torch.package archive",
        file_of(lambda _: zipped({"p/.data/extern_modules": b"os\n", "p/model.pkl": _HARMLESS})),
        "a torch.package archive",
        EXECUTES,
    ),
    "pickle-before-zip": Hostile(
        "a pickle in front of a sound archive",
        file_of(lambda marker: pickled(system(marker)) + plain_tensor_zip()),
        "os.system",
        EXECUTES,
    ),
    "tar": Hostile("torch's tar format of 2016", file_of(_tar), "pickle, byte 2: would call os.system", EXECUTES),
    "tar-polyglot": Hostile(
        "a file that is torch's tar format and its later format at once",
        file_of(_tar_and_legacy),
        "a tar archive",
        UNREADABLE,
    ),
    "gzip": Hostile(
        "a pickle packed with gzip",
        file_of(lambda marker: gzip.compress(pickled(system(marker)))),
        "packed with gzip: unpack it and scan what is inside",
        UNREADABLE,
    ),
    "7z": Hostile(
        "a 7z archive, which picklescan once took for nothing",
        file_of(lambda _: b"7z\xbc\xaf\x27\x1c\0\4"),
        "packed with 7z",
        UNREADABLE,
    ),
    "bytes-after-zip": Hostile(
        "a pickle behind a sound archive",
        file_of(lambda marker: plain_tensor_zip() + pickled(system(marker))),
        "does not end with a plain end record",
        UNREADABLE,
    ),
    "bytes-before-zip": Hostile(
        "one archive in front of another",
        file_of(lambda _: plain_tensor_zip() + plain_tensor_zip()),
        "bytes before it or after it",
        UNREADABLE,
    ),
    "truncated-zip": Hostile(
        "an archive without its end", file_of(lambda _: plain_tensor_zip()[:-30]), "truncated", UNREADABLE
    ),
    "end-records": Hostile(
        "two end records that do not agree",
        _edited((_END, 16, b"\1\0\0\0"), archive=_two_end_records()),
        "two end records do not agree",
        UNREADABLE,
    ),
    "member-count": Hostile(
        "a directory with fewer members than it says",
        _edited((_END, 8, b"\7\0\7\0")),
        "does not hold the 7 members",
        UNREADABLE,
    ),
    "undirected": Hostile(
        "a member that is in no directory", file_of(_undirected), "bytes before it belong to none", UNREADABLE
    ),
    "same-bytes": Hostile(
        "two members over the same bytes",
        _edited((_DIRECTORY, 42, b"\x20\0\0\0")),
        "overlaps another member",
        UNREADABLE,
    ),
    "two-names": Hostile(
        "a member with another name in its own header than in the directory",
        _edited((_LOCAL, 30, b"m/data.zzz")),
        "differently in its own header",
        UNREADABLE,
    ),
    "two-sizes": Hostile(
        "a member with another size in its own header than in the directory",
        _edited((_LOCAL, 22, b"\1\0\0\0")),
        "another size in its own header",
        UNREADABLE,
    ),
    "double": Hostile(
        "two members of the same name",
        file_of(lambda _: torch_zip(_HARMLESS, {"m/data.pk_": b""}).replace(b"data.pk_", b"data.pkl")),
        "two members are called 'm/data.pkl'",
        UNREADABLE,
    ),
    "double-but-for-case": Hostile(
        "two members whose names differ in case only, which torch mixes up",
        _with_member("m/DATA.pkl", lambda _: b""),
        "differ only in case",
        UNREADABLE,
    ),
    "path-out": Hostile(
        "a member called `../../.bashrc`", _with_member("../../.bashrc", lambda _: b""), "reaches out", UNREADABLE
    ),
    "absolute-path": Hostile(
        "a member called `/etc/cron.d/job`", _with_member("/etc/cron.d/job", lambda _: b""), "reaches out", UNREADABLE
    ),
    "back-slash": Hostile("a member called `..\\x`", _with_member("..\\x", lambda _: b""), "odd name", UNREADABLE),
    "symlink-member": Hostile(
        "a member that is a symbolic link", _special_member((stat.S_IFLNK | 0o777) << 16), "a link", UNREADABLE
    ),
    "folder-flag": Hostile(
        "a file that says it is a folder: torch reads other bytes than zipfile",
        _special_member(0x10),
        "a folder, not a file",
        UNREADABLE,
    ),
    "second-name": Hostile(
        "a member with a second name in an extra field",
        _special_member(extra=struct.pack("<2H", 0x7075, 5) + b"\1\0\0\0\0"),
        "a second name",
        UNREADABLE,
    ),
    "encrypted": Hostile(
        "an encrypted member", _edited((_LOCAL, 6, b"\1\0"), (_DIRECTORY, 8, b"\1\0")), "is encrypted", UNREADABLE
    ),
    "zip-bomb": Hostile(
        "a few bytes that say they unpack to 2 GiB",
        _edited(
            (_LOCAL, 22, struct.pack("<L", 2**31)),
            (_DIRECTORY, 24, struct.pack("<L", 2**31)),
            archive=zipped({"a.npy": b"x"}, zipfile.ZIP_DEFLATED),
        ),
        "a zip bomb",
        UNREADABLE,
    ),
    "compressed": Hostile(
        "a torch archive that was packed again",
        file_of(lambda _: zipped({"m/data.pkl": _HARMLESS, "m/version": b"3"}, zipfile.ZIP_DEFLATED)),
        "compressed members",
        UNREADABLE,
    ),
    "odd-version": Hostile(
        "a torch archive of an unknown version",
        file_of(lambda _: zipped({"m/data.pkl": _HARMLESS, "m/version": b"99"})),
        "m/version: not what torch.save writes there",
        UNREADABLE,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_archives_are_refused_and_not_run(case: str, tmp_path: Path) -> None:
    check(CASES[case], tmp_path)
