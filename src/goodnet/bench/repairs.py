"""What a repair in one trial was worth, and what a repairer was worth over all rows of a table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from goodnet.bench.changed import Changed, changes
from goodnet.bench.goodnets import GoodNetTrial, goodnet_trials
from goodnet.bench.record import canonical

if TYPE_CHECKING:
    from goodnet.bench.table import Table, TableRow
    from goodnet.bench.trial import Trial

REPAIR_OUTCOMES = ("repaired", "no harm", "backdoor left", "reverted", "nothing done", "harmed")
ORACLE = "the best of them for each net"
_NOT_THE_NET = ("repair", "held", "labeled", "triggers", "label", "published", "seed")  # keys of a row


@dataclass(frozen=True, kw_only=True)
class RepairTrial(Changed):
    """What a repairer made of a net; ``seconds`` are without the audit that it may need.

    Attributes:
        made: whether there is a new model; if not, after is as before.
        accepted: whether ``goodnet repair`` would put the new model in the old one's place, by its proof.
        reason: of that, in a sentence.
        own_answers: whether the old model's answers stand for labels, so that accuracy is the share of them that stays.
        goodnets: what old and new model do together, one for each rule that could be fitted.
    """

    made: bool
    accepted: bool
    reason: str
    own_answers: bool
    goodnets: tuple[GoodNetTrial, ...] = ()

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
            **self.changes_as_json(),
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
    accuracy, success = changes(told["evaluation"])
    return RepairTrial(
        accuracy=accuracy,
        success=success,
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
