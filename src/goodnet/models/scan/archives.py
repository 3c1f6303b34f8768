"""Zip archives: torch.save, .npz and .keras. The layout must be the plain one, so that every unzipper sees the same."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from goodnet.models.scan.base import MIB, Broken, Window, is_bomb

_MEMBER_LIMIT = 100_000
_DIRECTORY_LIMIT = 64 * MIB
_NAME_LIMIT = 1024
_FOLDER_FLAG = 0x10
_UNICODE_PATH = 0x7075
_ZIP64 = 0x0001


@dataclass(frozen=True)
class Member:
    """One member of an archive: ``start`` is where its bytes lie in the window, ``size`` what they unpack to."""

    name: str
    start: int
    stored_size: int
    size: int
    compressed: bool


class Archive:
    """A zip archive whose layout has been checked: no gaps, overlaps, doubles, hidden headers, paths out, or bombs.

    Attributes:
        members: by name, in the order in which they lie in the file.
    """

    def __init__(self, window: Window):
        """Raises Broken if the archive is not plain."""
        self.window = window
        directory = _find_directory(window)
        try:
            self._zip = zipfile.ZipFile(window)  # type: ignore[arg-type]
        except (zipfile.BadZipFile, ValueError, struct.error, OSError, OverflowError, NotImplementedError) as error:
            raise Broken(f"zip directory: {error}") from None
        infos = sorted(self._zip.infolist(), key=lambda info: info.header_offset)
        self.members: dict[str, Member] = {}
        position = 0
        for info in infos:
            _check_entry(info)
            if info.filename in self.members:
                raise Broken(f"two members are called {info.filename!r:.80}")
            member, position = _locate(window, info, position)
            self.members[member.name] = member
        if position != directory:
            raise Broken("bytes between the members and the directory of the zip archive")
        total = sum(member.size for member in self.members.values())
        if is_bomb(total, window.size):
            raise Broken(f"a zip bomb: {window.size:,} bytes that unpack to {total:,}")

    def read(self, name: str, limit: int) -> bytes:
        """The member's first ``limit`` bytes, unpacked. Raises Broken if they cannot be unpacked."""
        member = self.members[name]
        if not member.compressed:
            return self.window.at(member.start, min(limit, member.size))
        try:
            with self._zip.open(name) as file:
                return file.read(min(limit, member.size))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise Broken(f"{name}: {error}") from None

    def open(self, name: str) -> Window:
        """A member that is stored as it is. Raises Broken if it is compressed."""
        member = self.members[name]
        if member.compressed:
            raise Broken(f"{name} is compressed; goodnet reads it only if it is stored as it is")
        return self.window.part(member.start, member.size)


def _find_directory(window: Window) -> int:
    """Where the directory starts; it must end where its end record starts and hold what that says."""
    end = window.size - 22
    fields = struct.unpack("<4s4H2LH", window.at(max(end, 0), 22).ljust(22, b"\0"))
    signature, disk, first_disk, entries_here, entries, size, start, comment = fields
    if signature != b"PK\5\6" or comment or disk or first_disk or entries_here != entries:
        raise Broken("a zip archive that does not end with a plain end record: truncated, or with bytes appended")
    if window.at(max(end - 20, 0), 4) == b"PK\6\7":
        locator = struct.unpack("<4sLQL", window.at(end - 20, 20))
        end -= 20 + 56
        wide = struct.unpack("<4sQ2H2L4Q", window.at(max(end, 0), 56).ljust(56, b"\0"))
        narrow, (entries_here, entries, size, start) = (entries, size, start), wide[6:]
        agree = all(
            few in (many, 2 ** (8 * width) - 1)
            for few, many, width in zip(narrow, (entries, size, start), (2, 4, 4), strict=True)
        )
        if wide[:2] != (b"PK\6\6", 44) or any(wide[4:6]) or locator[1:] != (0, end, 1) or not agree:
            raise Broken("a zip archive whose two end records do not agree")
    if start + size != end or size > _DIRECTORY_LIMIT or entries > _MEMBER_LIMIT or entries_here != entries:
        raise Broken("a zip archive with bytes before it or after it, or with too many members")
    if _count_entries(window.at(start, size)) != entries:
        raise Broken(f"a zip directory that does not hold the {entries} members that it says")
    return int(start)


def _count_entries(directory: bytes) -> int:
    """How many entries fill the directory exactly, or -1: zipfile does not mind an entry that is cut off."""
    position, count = 0, 0
    while position < len(directory):
        lengths = directory[position + 28 : position + 34].ljust(6, b"\0")
        position += 46 + sum(struct.unpack("<3H", lengths))
        count += 1
    return count if position == len(directory) else -1


def _check_entry(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    if info.flag_bits & 0x41:
        raise Broken(f"{name!r:.80} is encrypted")
    parts = name.split("/")
    if not name.isprintable() or len(name) > _NAME_LIMIT or "\\" in name or info.filename != name:
        raise Broken(f"a member has the odd name {name!r:.80}")
    if name.startswith("/") or ".." in parts or name[1:2] == ":":
        raise Broken(f"the member {name!r:.80} reaches out of the archive")
    kind = stat.S_IFMT(info.external_attr >> 16)
    is_folder = bool(info.external_attr & _FOLDER_FLAG or kind == stat.S_IFDIR)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (is_folder and not name.endswith("/")):
        raise Broken(f"{name!r:.80} is a link, a device or a folder, not a file")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.volume:
        raise Broken(f"{name!r:.80} is packed in a way that goodnet does not read")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise Broken(f"{name!r:.80} is stored as it is and yet has two sizes")
    extra = list(_extra_fields(info.extra))
    if _UNICODE_PATH in extra or extra.count(_ZIP64) > 1:
        raise Broken(f"{name!r:.80} has a second name or a second size")


def _extra_fields(extra: bytes) -> Iterator[int]:
    while len(extra) >= 4:
        identity, length = struct.unpack("<2H", extra[:4])
        yield identity
        extra = extra[4 + length :]


def _locate(window: Window, info: zipfile.ZipInfo, position: int) -> tuple[Member, int]:
    """The member at ``position``, whose own header must say what the directory says, and where the next one starts."""
    if info.header_offset != position:
        raise Broken(f"{info.filename!r:.80} overlaps another member, or bytes before it belong to none")
    header = struct.unpack("<4s5H3L2H", window.at(position, 30).ljust(30, b"\0"))
    signature, _, flags, method, _, _, crc, stored_size, size, name_length, extra_length = header
    rest = window.at(position + 30, name_length + extra_length)
    codec = "utf-8" if flags & 0x800 else "cp437"
    name = rest[:name_length].decode(codec, errors="replace")
    wide = rest[name_length : name_length + 20]
    if stored_size == size == 2**32 - 1 and len(wide) == 20 and wide.startswith(struct.pack("<2H", _ZIP64, 16)):
        size, stored_size = struct.unpack("<2Q", wide[4:])
    streamed = bool(flags & 8)
    here, there = (crc, stored_size, size), (info.CRC, info.compress_size, info.file_size)
    if (signature, flags, method, name) != (b"PK\3\4", info.flag_bits, info.compress_type, info.orig_filename):
        raise Broken(f"{info.filename!r:.80} is called or packed differently in its own header and in the directory")
    if here != there and not (streamed and here == (0, 0, 0)):
        raise Broken(f"{info.filename!r:.80} has another size in its own header than in the directory")
    start = position + 30 + name_length + extra_length
    end = start + info.compress_size
    if streamed:
        end += _descriptor_length(window.at(end, 24), there)
    member = Member(info.filename, start, info.compress_size, info.file_size, method == zipfile.ZIP_DEFLATED)
    return member, end


def _descriptor_length(data: bytes, there: tuple[int, int, int]) -> int:
    """Bytes that repeat checksum and sizes behind a streamed member; torch leaves them out behind an empty one."""
    for layout in ("<L2Q", "<3L"):
        if layout == "<3L" and max(there) >= 2**32:
            continue
        for signature in (b"PK\7\b", b""):
            descriptor = signature + struct.pack(layout, *there)
            if data.startswith(descriptor):
                return len(descriptor)
    if there[1]:
        raise Broken("a zip member whose sizes are not repeated behind it")
    return 0
