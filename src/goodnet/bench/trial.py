"""Trial: what a store knows about one row of a suite with one seed, and what a defense in it was worth."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import JsonValue

from goodnet.bench.cells import FIXED_TARGET
from goodnet.bench.changed import Changed
from goodnet.bench.cleansings import CleanseTrial, cleanse_trial
from goodnet.bench.learnings import LearnTrial, learn_trial
from goodnet.bench.record import Cell, Record
from goodnet.bench.repairs import RepairTrial, repair_trial
from goodnet.bench.store import Store
from goodnet.errors import UnreadableFile
from goodnet.evaluation import Rate

STATUSES = ("done", "failed", "missing")
OUTCOMES = (  # verdict against truth, the best first
    "found, right target",
    "rightly not flagged",
    "found",
    "found, wrong target",
    "inconclusive",
    "false alarm",
    "missed",
)
_DAMAGED = "its result is damaged; the next run computes it again"


@dataclass(frozen=True)
class Judged:
    """What an auditor said about a net, beside the truth.

    Attributes:
        flagged: None when inconclusive.
        targets: the labels that it suspects.
        true_targets: those of the attack; empty for a net without one.
        targets_right: whether the two are the same labels; None if nothing was found or the attack has no fixed target.
        p_value, score: as in ``Verdict``.
    """

    flagged: bool | None
    targets: tuple[int, ...]
    true_targets: tuple[int, ...]
    targets_right: bool | None
    p_value: float | None
    score: float | None

    @property
    def outcome(self) -> str:
        """Verdict against truth: one of ``OUTCOMES``."""
        if self.flagged is None:
            return "inconclusive"
        if not self.true_targets:
            return "false alarm" if self.flagged else "rightly not flagged"
        if not self.flagged:
            return "missed"
        if self.targets_right is None:
            return "found"
        return "found, right target" if self.targets_right else "found, wrong target"

    def as_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "flagged": self.flagged,
            "targets": list(self.targets),
            "true_targets": list(self.true_targets),
            "targets_right": self.targets_right,
            "p_value": self.p_value,
            "score": self.score,
        }


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row of a suite with one seed.

    Attributes:
        seed: of poisoning, training and defense.
        key: of its last cell.
        status, reason: whether that cell is done, failed or missing, and why.
        records: of all its cells that were computed, what is needed first.
        accuracy, success: on clean and on stamped images, before any defense; None where nothing was measured.
        judged: None without an audit that is done.
        repaired, cleansed, learned: likewise.
    """

    seed: int
    key: str
    status: Literal["done", "failed", "missing"]
    reason: str
    records: tuple[Record, ...]
    accuracy: Rate | None
    success: Rate | None
    judged: Judged | None
    repaired: RepairTrial | None = None
    cleansed: CleanseTrial | None = None
    learned: LearnTrial | None = None

    @property
    def changed(self) -> Changed | None:
        """What a repairer or a learner made in the net's place."""
        return self.repaired or self.learned

    @property
    def seconds(self) -> float | None:
        """Wall time of all its cells; a net that several rows share counts in each of them."""
        return sum(record.seconds for record in self.records) if self.records else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory that one of its cells held."""
        return max((record.peak_memory_bytes for record in self.records), default=None)

    @property
    def versions(self) -> dict[str, str]:
        """Library → version; several, with commas, if its cells were computed with several."""
        names = sorted({name for record in self.records for name in record.versions})
        return {name: _distinct(record.versions.get(name) for record in self.records) for name in names}

    @property
    def git(self) -> str | None:
        """The commit of goodnet that computed it; several, with commas, if its cells differ."""
        return _distinct(record.git for record in self.records) or None

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "key": self.key,
            "status": self.status,
            "reason": self.reason,
            "clean_accuracy": None if self.accuracy is None else self.accuracy.as_json(),
            "attack_success_rate": None if self.success is None else self.success.as_json(),
            "verdict": None if self.judged is None else self.judged.as_json(),
            "repair": None if self.repaired is None else self.repaired.as_json(),
            "cleanse": None if self.cleansed is None else self.cleansed.as_json(),
            "learn": None if self.learned is None else self.learned.as_json(),
            "seconds": self.seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
            "versions": self.versions,
            "git": self.git,
            "finished": self.records[-1].finished if self.records else None,
        }


def trial_of(values: Mapping[str, JsonValue], cell: Cell, store: Store) -> Trial:
    """What ``store`` knows about a row of a suite, ``cell`` being its last cell."""
    found = [_stored(one, store) for one in chain(cell)]
    last, records = found[-1], tuple(one for one in found if isinstance(one, Record))
    results = [record.result for record in records if record.result is not None]
    result: Mapping[str, Any] = results[-1] if results else {}
    seed = values.get("seed", 0)
    return Trial(
        seed=seed if isinstance(seed, int) else 0,
        key=cell.key,
        status=last.status if isinstance(last, Record) else "missing",
        reason=(last.error or "") if isinstance(last, Record) else last,
        records=records,
        accuracy=_rate(result.get("clean_accuracy")),
        success=_rate(result.get("attack_success_rate")),
        judged=_judged(result, cell) if "flagged" in result else None,
        repaired=repair_trial(result),
        cleansed=cleanse_trial(result),
        learned=learn_trial(result),
    )


def chain(cell: Cell) -> list[Cell]:
    """A cell after everything that it needs."""
    return [*(one for need in cell.needs for one in chain(need)), cell]


def _stored(cell: Cell, store: Store) -> Record | str:
    """The record of a cell, or why there is none."""
    try:
        return store.read(cell.key) or ""
    except UnreadableFile:
        return _DAMAGED


def _rate(counts: Mapping[str, Any] | None) -> Rate | None:
    return None if counts is None else Rate(counts["hits"], counts["count"])


def _judged(result: Mapping[str, Any], audit: Cell) -> Judged:
    targets, truth = tuple(result["targets"]), tuple(result["true_targets"])
    parameters: Mapping[str, Any] = audit.parameters
    attack = parameters["model"]["attack"]
    fixed = attack is not None and attack["parameters"]["rule"] in FIXED_TARGET
    return Judged(
        flagged=result["flagged"],
        targets=targets,
        true_targets=truth,
        targets_right=set(targets) == set(truth) if result["flagged"] and fixed else None,
        p_value=result["p_value"],
        score=result["score"],
    )


def _distinct(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))
