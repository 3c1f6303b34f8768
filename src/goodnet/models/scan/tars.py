"""Tar archives: how torch saved in 2016. Always refused; the pickles inside are named."""

import tarfile

from goodnet.models.scan.base import MIB, Finding, Window, findings_in
from goodnet.models.scan.zip_files import ScanInside

_BLOCK = 512
_LOOK = MIB // 4
_LOOKS = 32


def is_tar(window: Window) -> bool:
    """Whether the first block is a tar header, checksum included: then torch.load takes the file for a tar archive."""
    return _header(window, 0) is not None


def scan_tar(window: Window, scan_inside: ScanInside) -> list[Finding]:
    """What the members would execute, and that goodnet does not read them."""
    message = "a tar archive, as torch wrote in 2016: load it in a container and save its state_dict again"
    findings = [Finding("unreadable", "", "", message)]
    position = 0
    for _ in range(_LOOKS):
        header = _header(window, position)
        if header is None:
            break
        position += _BLOCK
        inside = findings_in(header.name, scan_inside, window.part(position, min(header.size, _LOOK)))
        findings += [finding for finding in inside if finding.severity == "executes"]
        position += -(-header.size // _BLOCK) * _BLOCK
    return findings


def _header(window: Window, position: int) -> tarfile.TarInfo | None:
    try:
        header = tarfile.TarInfo.frombuf(window.at(position, _BLOCK), "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return header if header.size >= 0 else None
