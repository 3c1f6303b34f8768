"""What a model file would execute, said before anything loads it. Nothing in the file is ever executed or imported.

A file passes only if every part of it is of a kind that goodnet knows to be data: the lists are of harmless names, not
of dangerous ones. ``docs/security.md`` says what is promised, and shows each hostile file that is tested.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from goodnet.errors import UnreadableModel, UnsafeFile
from goodnet.models.scan.base import JSON_LIMIT, Broken, Finding, Window, findings_in, parse_json
from goodnet.models.scan.content import scan_window

__all__ = ["Finding", "SafetyReport", "require_safe", "scan_file"]

_FOLDER_FILES = ("model.safetensors", "model.json")
_SHOWN = 10
_EXECUTES_ADVICE = (
    "Ask the author for the weights as .safetensors, or as a state_dict saved with torch.save; "
    "convert it yourself only in a container that you can throw away."
)
_UNREADABLE_ADVICE = "Download it again, or ask the author for the weights as .safetensors or as a state_dict."


@dataclass(frozen=True)
class SafetyReport:
    """What a scan found.

    Attributes:
        file: as it was given.
        kind: judged by the content: "torch zip", "torch legacy pickle", "safetensors", "hdf5", "keras zip", "npz",
            "npy" and "folder" can pass; others ("pickle", "torchscript", "tar", "gzip", "onnx", "unknown") never do.
        sha256: of the file, in hex; of a folder, of its lines "<sha256>  <name>\\n"; "" for what is not a file.
        size_bytes: of the file, or of the files of a folder that goodnet reads.
        findings: what the file would execute, what cannot be read, and notes.
    """

    file: Path
    kind: str
    sha256: str
    size_bytes: int
    findings: tuple[Finding, ...] = ()

    @property
    def safe(self) -> bool:
        """Whether the file may be loaded: nothing is executed and everything can be read; notes are allowed."""
        return all(finding.severity == "note" for finding in self.findings)


def scan_file(path: str | os.PathLike[str]) -> SafetyReport:
    """What loading a model file or folder would execute; standard library only, memory and time are bounded.

    Raises:
        UnreadableModel: there is no such file, or the disk does not give it.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _scan_folder(path)
        if not stat.S_ISREG(mode):
            special = Finding("unreadable", "", "", "a pipe, socket or device, not a file")
            return SafetyReport(path, "unknown", "", 0, (special,))
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            kind, findings = scan_window(Window(file, 0, size, path))
    except (OSError, ValueError) as error:
        raise UnreadableModel(f"{path}: {error}") from None
    return SafetyReport(path, kind, sha256, size, tuple(findings))


def require_safe(path: str | os.PathLike[str]) -> SafetyReport:
    """The report on a file that is safe to load.

    Raises:
        UnsafeFile: loading it the usual way would execute something; says what and where.
        UnreadableModel: part of it cannot be read; says what and where.
    """
    report = scan_file(path)
    if report.safe:
        return report
    executes = [finding for finding in report.findings if finding.severity == "executes"]
    if executes:
        lines = tuple(str(finding) for finding in executes)
        head = f"{report.file} would execute code when loaded the usual way; nothing was executed"
        raise UnsafeFile(_message(head, lines, _EXECUTES_ADVICE), lines)
    lines = tuple(str(finding) for finding in report.findings if finding.severity == "unreadable")
    raise UnreadableModel(_message(f"{report.file} cannot be read as a model file", lines, _UNREADABLE_ADVICE))


def _message(head: str, lines: tuple[str, ...], advice: str) -> str:
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n  ".join([f"{head}:", *lines[:_SHOWN], *more]) + f"\n{advice}"


def _scan_folder(folder: Path) -> SafetyReport:
    """A model as goodnet saves it: model.safetensors and model.json; whatever else lies there is not read."""
    findings: list[Finding] = []
    lines, size = "", 0
    for name in _FOLDER_FILES:
        path = folder / name
        if not path.is_file():
            findings.append(Finding("unreadable", name, "", "missing, or not a file"))
        elif folder.resolve() not in path.resolve().parents:
            findings.append(Finding("unreadable", name, "", "a link to a file outside of the folder"))
        else:
            with path.open("rb") as file:
                window = Window(file, 0, os.fstat(file.fileno()).st_size, path)
                findings += findings_in(name, _scan_folder_file, name, window)
                lines += f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n"
                size += window.size
    others = sum(1 for entry in os.scandir(folder) if entry.name not in _FOLDER_FILES)
    if others:
        findings.append(Finding("note", "", "", f"{others} other files in the folder are neither read nor scanned"))
    return SafetyReport(folder, "folder", hashlib.sha256(lines.encode()).hexdigest(), size, tuple(findings))


def _scan_folder_file(name: str, window: Window) -> list[Finding]:
    if name.endswith(".json"):
        if not isinstance(parse_json(window.at(0, JSON_LIMIT + 1)), dict):
            raise Broken("not a JSON object")
        return []
    kind, findings = scan_window(window)
    if kind != "safetensors":
        findings.append(Finding("unreadable", "", "", f"not a safetensors file but of kind {kind!r}"))
    return findings
