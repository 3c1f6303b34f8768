"""Which kind of file this is, by its first bytes and never by its name, and which scanner it goes to."""

from collections.abc import Callable

from goodnet.models.scan.arrays import NPY_LOOK, NPY_MAGIC, is_safetensors, scan_npy, scan_safetensors
from goodnet.models.scan.base import Broken, Finding, Window, findings_in
from goodnet.models.scan.hdf5 import HDF5_MAGIC, scan_hdf5
from goodnet.models.scan.tars import is_tar, scan_tar
from goodnet.models.scan.torch_files import LEGACY_MAGIC, scan_legacy, scan_plain_pickle
from goodnet.models.scan.zip_files import scan_zip

_DEPTH_LIMIT = 2
"""How many archives inside archives are opened."""
_ZIP_MAGIC = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\x04\x22\x4d\x18": "lz4",
    b"Rar!": "rar",
    b"\x78\x01": "zlib",
    b"\x78\x5e": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
}


def scan_window(window: Window, depth: int = 0) -> tuple[str, list[Finding]]:
    """The kind of file and its findings; ``depth`` counts the archives around it."""
    head = window.at(0, 16)
    packed = next((words for magic, words in _PACKED.items() if head.startswith(magic)), "")

    def inside(part: Window) -> list[Finding]:
        if depth == _DEPTH_LIMIT:
            raise Broken("archives nested too deeply")
        return scan_window(part, depth + 1)[1]

    if not head:
        return _unreadable("unknown", "an empty file")
    if head.startswith(_ZIP_MAGIC):
        try:
            return scan_zip(window, inside)
        except Broken as error:
            return _unreadable("zip", str(error))
    if is_tar(window):
        return "tar", scan_tar(window, inside)
    if packed:
        return _unreadable(packed, f"packed with {packed}: unpack it and scan what is inside")
    for kind, belongs, scan in _SCANNERS:
        if belongs(head):
            return kind, findings_in("", scan, window)
    return _scan_unknown(window, head)


def _scan_unknown(window: Window, head: bytes) -> tuple[str, list[Finding]]:
    is_pickle, findings = scan_plain_pickle(window)
    if is_pickle:
        kind, found = _unreadable("pickle", "a pickle that torch.save did not write: save a state_dict with torch.save")
        return kind, findings + found
    # ModelProto: the version of the format, then a field of bytes or a number
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x28", b"\x32", b"\x3a", b"\x42"):
        return _unreadable("onnx", "goodnet does not read ONNX files yet: ask for the weights as safetensors")
    return _unreadable("unknown", "no kind of model file that goodnet knows")


def _unreadable(kind: str, message: str) -> tuple[str, list[Finding]]:
    return kind, [Finding("unreadable", "", "", message)]


def _scan_npy_window(window: Window) -> list[Finding]:
    return scan_npy(window.at(0, NPY_LOOK), window.size)


_SCANNERS: tuple[tuple[str, Callable[[bytes], bool], Callable[[Window], list[Finding]]], ...] = (
    ("hdf5", lambda head: head.startswith(HDF5_MAGIC), scan_hdf5),
    ("npy", lambda head: head.startswith(NPY_MAGIC), _scan_npy_window),
    ("safetensors", is_safetensors, scan_safetensors),
    ("torch legacy pickle", lambda head: head.startswith(LEGACY_MAGIC[:15]), scan_legacy),
)
