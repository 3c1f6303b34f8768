"""Which kind of model a zip archive is, judged by its members, and what loading it would execute."""

import re
from collections.abc import Callable, Iterable

from goodnet.models.scan.archives import Archive
from goodnet.models.scan.arrays import NPY_LOOK, scan_npy
from goodnet.models.scan.base import JSON_LIMIT, MIB, Broken, Finding, Window, findings_in, window_on
from goodnet.models.scan.hdf5 import scan_hdf5
from goodnet.models.scan.keras_config import scan_keras_config
from goodnet.models.scan.pickles import PICKLE_LIMIT
from goodnet.models.scan.torch_files import scan_torch_pickle

ScanInside = Callable[[Window], list[Finding]]
"""What to do with a member that does not belong: look into it whatever it is."""

_LOOK = MIB // 4
"""How much of such a member is read, in bytes."""
_LOOKS = 32
_PROGRAMS = {
    "torchscript": (re.compile(r"(.*/)?(code/.*|constants\.pkl)"), "a TorchScript program"),
    "torch package": (re.compile(r"(.*/)?\.data/extern_modules"), "a torch.package archive, which carries Python code"),
}
_TORCH_RECORDS = {
    "version": rb"([1-9]|10)\s*",
    "byteorder": rb"little",
    ".format_version": rb"\d{1,3}",
    ".storage_alignment": rb"\d{1,6}",
    ".data/serialization_id": rb"\d{0,64}",
}
_KERAS_MEMBERS = {"config.json", "metadata.json", "model.weights.h5"}


def scan_zip(window: Window, scan_inside: ScanInside) -> tuple[str, list[Finding]]:
    """The kind and the findings of a zip archive.

    Raises:
        Broken: the archive is not plain.
    """
    archive = Archive(window)
    names = archive.members.keys()
    for kind, (pattern, words) in _PROGRAMS.items():
        if any(pattern.fullmatch(name) for name in names):
            program = Finding("executes", "", kind, f"{words}, which is code: ask for the state_dict")
            return kind, [program, *_look(archive, names, scan_inside)]
    pickles = [name for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) == 1:
        return "torch zip", _scan_torch(archive, pickles[0].removesuffix("data.pkl"), scan_inside)
    if "config.json" in names and names & _KERAS_MEMBERS != {"config.json"}:
        return "keras zip", _scan_keras(archive, scan_inside)
    if names and all(name.endswith(".npy") for name in names):
        return "npz", [finding for name in names for finding in findings_in(name, _scan_array, archive, name)]
    unknown = Finding("unreadable", "", "", "a zip archive that is no model file that goodnet knows")
    return "unknown", [unknown, *_look(archive, names, scan_inside)]


def _scan_torch(archive: Archive, top: str, scan_inside: ScanInside) -> list[Finding]:
    members = archive.members
    sizes = {name.removeprefix(f"{top}data/"): members[name].size for name in members if name.startswith(f"{top}data/")}
    records = {f"{top}{name}": pattern for name, pattern in _TORCH_RECORDS.items()}
    known = {f"{top}data.pkl", *records}
    strangers = [name for name in members if name not in known and not name.startswith(f"{top}data/")]
    findings = _strange(archive, strangers, scan_inside)
    # torch looks names up without regard to case
    if len({name.casefold() for name in members}) != len(members) or not all(map(str.isascii, members)):
        findings.append(Finding("unreadable", "", "", "member names that differ only in case, or are not ASCII"))
    if any(member.compressed for member in members.values()):
        findings.append(Finding("unreadable", "", "", "compressed members, which torch.save never writes"))
    for name, pattern in records.items():
        if name in members and not re.fullmatch(pattern, archive.read(name, 100)):
            findings.append(Finding("unreadable", name, "", "not what torch.save writes there"))
    if f"{top}version" not in members:
        findings.append(Finding("unreadable", f"{top}version", "", "missing"))
    return findings + findings_in(f"{top}data.pkl", _scan_data, archive, f"{top}data.pkl", sizes)


def _scan_data(archive: Archive, name: str, sizes: dict[str, int]) -> list[Finding]:
    if archive.members[name].size > PICKLE_LIMIT:
        raise Broken(f"a pickle of {archive.members[name].size:,} bytes; goodnet reads up to {PICKLE_LIMIT:,}")
    return scan_torch_pickle(archive.read(name, PICKLE_LIMIT), sizes, archive.window.size)


def _scan_keras(archive: Archive, scan_inside: ScanInside) -> list[Finding]:
    findings = _strange(archive, archive.members.keys() - _KERAS_MEMBERS, scan_inside)
    for name in sorted(_KERAS_MEMBERS & archive.members.keys()):
        findings += findings_in(name, _scan_keras_member, archive, name)
    return findings


def _scan_keras_member(archive: Archive, name: str) -> list[Finding]:
    if name.endswith(".h5"):
        return scan_hdf5(archive.open(name))
    text = archive.read(name, JSON_LIMIT + 1)
    return scan_keras_config(text)


def _scan_array(archive: Archive, name: str) -> list[Finding]:
    return scan_npy(archive.read(name, NPY_LOOK), archive.members[name].size)


def _strange(archive: Archive, names: Iterable[str], scan_inside: ScanInside) -> list[Finding]:
    """Members that do not belong: each is a finding, and so is what it would execute."""
    names = sorted(names)
    strange = [Finding("unreadable", name, "", "does not belong in such a file") for name in names[:_LOOKS]]
    return strange + _look(archive, names, scan_inside)


def _look_at(archive: Archive, name: str, scan_inside: ScanInside) -> list[Finding]:
    return scan_inside(window_on(archive.read(name, _LOOK)))


def _look(archive: Archive, names: Iterable[str], scan_inside: ScanInside) -> list[Finding]:
    """What the members would execute if something else loaded them; goodnet refuses the archive anyway."""
    findings = []
    for name in sorted(names)[:_LOOKS]:
        if name.endswith((".py", ".pyc")):
            findings.append(Finding("executes", name, "Python", "Python code"))
        inside = findings_in(name, _look_at, archive, name, scan_inside)
        findings += [finding for finding in inside if finding.severity == "executes"]
    return findings
