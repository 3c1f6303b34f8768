"""The two layouts of torch.save: a zip archive, and (before torch 1.6) pickles back to back, then raw storages."""

import re
from collections.abc import Mapping

from goodnet.models.scan.base import Broken, Finding, Window
from goodnet.models.scan.pickles import PICKLE_LIMIT, PickleScan
from goodnet.models.scan.torch_objects import Storage, TorchObjects
from goodnet.models.scan.values import Vocabulary

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_PROTOCOL_VERSION = 1001
_PICKLES_IN_A_ROW = 4
_PROTOCOL_HEAD = re.compile(rb"\x80[\x00-\x05]")


def scan_legacy(window: Window) -> list[Finding]:
    """Magic number, protocol version, system facts, the object, storage keys (five pickles), then the storages.

    Raises:
        Broken: the layout is not that.
    """
    data = window.at(0, PICKLE_LIMIT)
    torch = TorchObjects(None, window.size)
    findings: list[Finding] = []
    position, roots = 0, []
    for vocabulary in (Vocabulary(), Vocabulary(), Vocabulary(), torch.vocabulary(), Vocabulary()):
        scan = PickleScan(data, position, vocabulary)
        findings += scan.findings
        if scan.end is None:
            return findings
        roots.append(scan.root)
        position = scan.end
    if findings:
        return findings
    _, version, system, _, keys = roots
    if version != _PROTOCOL_VERSION or type(version) is not int:
        raise Broken("a torch file of an unknown protocol version")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Broken("a torch file whose system facts are missing, or from a big-endian machine")
    _check_storages(window, position, keys, torch.storages)
    return []


def _check_storages(window: Window, position: int, keys: object, storages: Mapping[str, Storage]) -> None:
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise Broken("the list of storage keys is not a list of texts")
    if len(keys) != len(storages) or set(keys) != storages.keys():
        raise Broken("the list of storage keys does not match the tensors")
    for key in keys:
        storage = storages[key]
        if window.at(position, 8) != storage.count.to_bytes(8, "little"):
            raise Broken(f"storage {key[:40]!r} is not where it should be")
        position += 8 + storage.count * storage.element_bytes
    if position != window.size:
        raise Broken(f"the storages end at byte {position:,}, the file at byte {window.size:,}")


def scan_torch_pickle(data: bytes, sizes: Mapping[str, int], present: int) -> list[Finding]:
    """The data.pkl of a zip archive whose storages have these ``sizes`` (key → bytes), in ``present`` bytes in all.

    Raises:
        Broken: bytes after the pickle, or storages that belong to no tensor.
    """
    torch = TorchObjects(sizes, present)
    scan = PickleScan(data, 0, torch.vocabulary())
    if scan.findings or scan.end is None:
        return scan.findings
    if scan.end != len(data):
        raise Broken(f"{len(data) - scan.end:,} bytes after the end of the pickle")
    unused = sizes.keys() - torch.storages.keys()
    if unused:
        raise Broken(f"the storage {min(unused)!r:.40} belongs to no tensor")
    return []


def scan_plain_pickle(window: Window) -> tuple[bool, list[Finding]]:
    """Whether this is a pickle at all, and what it, and those right behind it, would execute."""
    data = window.at(0, PICKLE_LIMIT)
    findings: list[Finding] = []
    position: int | None = 0
    complete = 0
    for _ in range(_PICKLES_IN_A_ROW):
        if position is None or position == len(data):
            break
        scan = PickleScan(data, position, Vocabulary())
        position = scan.end
        complete += position is not None
        findings += [finding for finding in scan.findings if finding.severity == "executes"]
    is_pickle = bool(complete or findings or _PROTOCOL_HEAD.match(data))
    return is_pickle, findings
