"""The bank of clean nets: what clean models score, so that a suspect's score means something.

A p-value is conformal: with n clean nets of the suspect's kind, p = (1 + how many score as high) / (n + 1). It cannot
go below 1 / (n + 1): 19 nets can speak at 5 %, 99 at 1 %. It is honest as far as the suspect, were it clean, would be
a net like those in the bank.
"""

import importlib.resources
import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from goodnet.errors import UnreadableData

_KINDS = (("2 to 20 labels", 2, 20), ("21 to 99 labels", 21, 99), ("100 labels and more", 100, 10**9))


@dataclass(frozen=True, kw_only=True)
class BankEntry:
    """One clean net's score.

    Attributes:
        method, version: the auditor's; scores of other versions are not compared.
        score: larger is more suspicious.
        num_classes: K.
        architecture, data, seed: which net it is.
        clean_accuracy: on held-out images, or None when unknown.
    """

    method: str
    version: int
    score: float
    num_classes: int
    architecture: str
    data: str
    seed: int
    clean_accuracy: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A score among clean nets: the p-value (None: nothing fits), the smallest one possible, and the words for it."""

    p_value: float | None
    floor: float
    basis: str


@dataclass(frozen=True)
class CleanBank:
    """Scores of clean nets; see the module's text."""

    entries: tuple[BankEntry, ...]

    @classmethod
    def shipped(cls) -> "CleanBank":
        """The bank that comes with goodnet, and the user's own beside it (``goodnet bank add``)."""
        return cls(_packaged().entries + (cls.read(user_bank()).entries if user_bank().exists() else ()))

    @classmethod
    def read(cls, path: Path) -> "CleanBank":
        """A bank file.

        Raises:
            UnreadableData: it is not one.
        """
        try:
            return cls(tuple(BankEntry(**row) for row in json.loads(path.read_text())["nets"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableData(
                f"{path} is not a bank of clean nets ({error}); move it away or make it anew"
            ) from None

    def write(self, path: Path) -> None:
        """Write the bank, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = ",\n  ".join(json.dumps(asdict(entry)) for entry in self.entries)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(f'{{"schema": 1, "nets": [\n  {rows}\n]}}\n')
        os.replace(partial, path)

    def compare(self, score: float, method: str, version: int, num_classes: int) -> Comparison:
        """``score`` among the clean nets of the same method and version with about as many labels."""
        kind, low, high = next(kind for kind in _KINDS if kind[1] <= num_classes <= kind[2])
        scores = [
            entry.score
            for entry in self.entries
            if entry.method == method and entry.version == version and low <= entry.num_classes <= high
        ]
        floor = 1 / (len(scores) + 1)
        basis = f"{len(scores)} clean nets with {kind}"
        if not scores:
            return Comparison(
                None, floor, f"the bank holds no clean nets with {kind} for {method}; add some of your own"
            )
        at_least = sum(1 for known in scores if known >= score)
        return Comparison((1 + at_least) / (len(scores) + 1), floor, basis)


def user_bank() -> Path:
    """Where the user's own clean nets are kept: GOODNET_BANK, else the data folder of the XDG convention."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(os.environ.get("GOODNET_BANK") or home / "goodnet" / "bank.json")


@lru_cache(maxsize=1)
def _packaged() -> CleanBank:
    with importlib.resources.as_file(importlib.resources.files("goodnet.audit") / "clean_bank.json") as path:
        return CleanBank.read(path)
