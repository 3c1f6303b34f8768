"""What a repair in one trial was worth, and what a repairer was worth over all rows of a table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from goodnet.bench.goodnets import GoodNetTrial, goodnet_trials
from goodnet.bench.record import canonical
from goodnet.evaluation import Change, Rate, defense_effectiveness, repair_succeeded

if TYPE_CHECKING:
    from goodnet.bench.table import Table, TableRow
    from goodnet.bench.trial import Trial

TAKEN = 0.1  # attack success up to which there is nothing to repair, as in evaluation.repair
MOST_DROP = 0.03  # accuracy that may be lost, likewise
REPAIR_OUTCOMES = ("repaired", "no harm", "backdoor left", "reverted", "nothing done", "harmed")
ORACLE = "the best of them for each net"
_NOT_THE_NET = ("repair", "held", "labeled", "triggers", "label", "published", "seed")  # keys of a row


@dataclass(frozen=True, kw_only=True)
class RepairTrial:
    """What a repairer made of a net, beside the truth that it did not know.

    Attributes:
        accuracy: before and after, on images that the defender does not hold; with ``own_answers`` the share that is
            answered as the old model answers.
        success: of the attack, likewise; None without one.
        made: whether there is a new model; if not, after is as before.
        accepted: whether ``goodnet repair`` would put the new model in the old one's place, by its proof.
        reason: of that, in a sentence.
        own_answers: whether the old model's answers stand for labels.
        seconds: of the repair, without the audit that it may need.
        goodnets: what old and new model do together, one for each rule that could be fitted.
    """

    accuracy: Change
    success: Change | None
    made: bool
    accepted: bool
    reason: str
    own_answers: bool
    seconds: float
    goodnets: tuple[GoodNetTrial, ...] = ()

    @property
    def backdoored(self) -> bool:
        """Whether there was a backdoor that worked."""
        return self.success is not None and (self.success.before.value or 0.0) > TAKEN

    @property
    def succeeded(self) -> bool | None:
        """Whether what was made has no backdoor left and kept its accuracy; None if there was none."""
        return repair_succeeded(self.success, self.accuracy) if self.success is not None and self.backdoored else None

    @property
    def harmed(self) -> bool:
        """Whether what was made lost more accuracy than a repair may cost."""
        return (self.accuracy.drop or 0.0) > MOST_DROP + 1e-12

    @property
    def effectiveness(self) -> float | None:
        """Defense effectiveness rating of what was made; None without a backdoor."""
        return defense_effectiveness(self.success, self.accuracy) if self.success and self.backdoored else None

    @property
    def outcome(self) -> str:
        """What somebody has who takes the new model if the proof accepts it, else the old one: ``REPAIR_OUTCOMES``."""
        if not self.made:
            return "nothing done"
        if not self.accepted:
            return "reverted"
        if self.harmed:
            return "harmed"
        if not self.backdoored:
            return "no harm"
        return "repaired" if self.succeeded else "backdoor left"

    def as_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "made": self.made,
            "accepted": self.accepted,
            "reason": self.reason,
            "own_answers": self.own_answers,
            "clean_accuracy": {"before": self.accuracy.before.as_json(), "after": self.accuracy.after.as_json()},
            "attack_success_rate": None
            if self.success is None
            else {"before": self.success.before.as_json(), "after": self.success.after.as_json()},
            "accuracy_drop": self.accuracy.drop,
            "defense_effectiveness": self.effectiveness,
            "repair_succeeded": self.succeeded,
            "seconds": self.seconds,
            "goodnets": [one.as_json() for one in self.goodnets],
        }


@dataclass(frozen=True, kw_only=True)
class RepairSummary:
    """What one repairer, with its parameters, was worth over the nets of a table.

    Attributes:
        repair: its name in the table, or ``ORACLE``.
        backdoored: nets with a backdoor that worked.
        succeeded: of these, how often what was made has no backdoor left and kept its accuracy.
        kept: of these, how often the proof accepted it, so that somebody has it.
        nets: all nets, those without a backdoor among them.
        harmed: how many lost more than three points in what was made; harmed_kept: and the proof accepted it.
        drop: mean loss of accuracy over backdoored nets; clean_drop: over the others; None without any.
        success: mean attack success that is left; effectiveness: mean defense effectiveness rating.
    """

    repair: str
    backdoored: int
    succeeded: int
    kept: int
    nets: int
    harmed: int
    harmed_kept: int
    drop: float | None
    clean_drop: float | None
    success: float | None
    effectiveness: float | None


def repair_trial(result: Mapping[str, Any]) -> RepairTrial | None:
    """From the result of a cell; None without a repair."""
    told = result.get("repair")
    if told is None:
        return None
    before, after = told["evaluation"]["before"], told["evaluation"]["after"]
    hits = before["attack_success_rate"], after["attack_success_rate"]
    return RepairTrial(
        accuracy=Change(_rate(before["clean_accuracy"]), _rate(after["clean_accuracy"])),
        success=None if hits[0] is None else Change(_rate(hits[0]), _rate(hits[1])),
        made=told["made"],
        accepted=told["accepted"],
        reason=told["reason"],
        own_answers=told["own_answers"],
        seconds=told["seconds"],
        goodnets=goodnet_trials(told),
    )


def repair_summaries(table: "Table") -> list[RepairSummary]:
    """One for each repairer in the order of the table, then, of several, the best of them for each net.

    Rows whose repairer knows the target or the trigger have their own lines and no part in the last one.
    """
    by_repair: dict[str, list[RepairTrial]] = {}
    by_net: dict[str, list[RepairTrial]] = {}
    honest: set[str] = set()
    for row in table.rows:
        for trial in row.trials:
            if trial.repaired is not None:
                by_repair.setdefault(row.repair, []).append(trial.repaired)
                if row.values.get("triggers", "audit") == "audit":
                    honest.add(row.repair)
                    by_net.setdefault(_net(row, trial), []).append(trial.repaired)
    made = [_summary(repair, trials) for repair, trials in by_repair.items()]
    if len(honest) > 1:
        made.append(_summary(ORACLE, [max(trials, key=_worth) for trials in by_net.values()]))
    return made


def _summary(repair: str, trials: list[RepairTrial]) -> RepairSummary:
    ill = [trial for trial in trials if trial.backdoored]
    return RepairSummary(
        repair=repair,
        backdoored=len(ill),
        succeeded=sum(trial.succeeded is True for trial in ill),
        kept=sum(trial.succeeded is True and trial.accepted for trial in ill),
        nets=len(trials),
        harmed=sum(trial.harmed for trial in trials),
        harmed_kept=sum(trial.harmed and trial.accepted for trial in trials),
        drop=_mean(trial.accuracy.drop for trial in ill),
        clean_drop=_mean(trial.accuracy.drop for trial in trials if not trial.backdoored),
        success=_mean(trial.success.after.value for trial in ill if trial.success is not None),
        effectiveness=_mean(trial.effectiveness for trial in ill),
    )


def _worth(trial: RepairTrial) -> tuple[bool, bool, float, float]:
    """Larger is better; of nets without a backdoor the one that lost least."""
    return trial.succeeded is True, trial.accepted, trial.effectiveness or 0.0, -(trial.accuracy.drop or 0.0)


def _net(row: "TableRow", trial: "Trial") -> str:
    """Names what was repaired: the row without the repair, and the seed."""
    return canonical([{key: value for key, value in row.values.items() if key not in _NOT_THE_NET}, trial.seed])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _rate(counts: Mapping[str, Any]) -> Rate:
    return Rate(counts["hits"], counts["count"])
