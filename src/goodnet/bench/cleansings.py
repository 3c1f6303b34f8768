"""What a cleanser made of a training set in one trial, and what a cleanser was worth over all rows of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from goodnet.bench.changed import TAKEN
from goodnet.evaluation import Rate

if TYPE_CHECKING:
    from goodnet.bench.table import Table

ENOUGH = 0.95  # of the poison: a detection rate that counts as success
MOST_LOST = 0.01  # of the clean samples: what may be lost for it
CLEANSE_OUTCOMES = ("cleansed", "rightly kept", "poison left", "clean lost")


@dataclass(frozen=True, kw_only=True)
class CleanseTrial:
    """What a cleanser said about a training set, beside the truth that it did not know.

    Attributes:
        auroc, auroc_interval: of its scores; None for a set without poison.
        at_1, at_5: poison above the threshold that flags at most 1 % and 5 % of the clean samples; that threshold is
            known in hindsight only.
        poison_removed, clean_removed: by its own decision; covers are neither.
        covers_removed: likewise.
        rule: of that decision, in a sentence.
        seconds: of the cleanser, without the training of the net that it may be given.
    """

    auroc: float | None
    auroc_interval: tuple[float, float] | None
    at_1: Rate
    at_5: Rate
    poison_removed: Rate
    clean_removed: Rate
    covers_removed: Rate
    rule: str
    seconds: float

    @property
    def poisoned(self) -> bool:
        """Whether there is poison in the set."""
        return self.poison_removed.count > 0

    @property
    def ranked(self) -> bool:
        """Whether some threshold would catch ``ENOUGH`` at ``MOST_LOST``."""
        return (self.at_1.value or 0.0) >= ENOUGH

    @property
    def outcome(self) -> str:
        """What somebody has who goes by its decision: one of ``CLEANSE_OUTCOMES``."""
        if (self.clean_removed.value or 0.0) > MOST_LOST:
            return "clean lost"
        if not self.poisoned:
            return "rightly kept"
        return "cleansed" if (self.poison_removed.value or 0.0) >= ENOUGH else "poison left"

    def as_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "auroc": self.auroc,
            "auroc_interval_95": None if self.auroc_interval is None else list(self.auroc_interval),
            "true_positive_rate_at_1": self.at_1.as_json(),
            "true_positive_rate_at_5": self.at_5.as_json(),
            "poison_removed": self.poison_removed.as_json(),
            "clean_removed": self.clean_removed.as_json(),
            "covers_removed": self.covers_removed.as_json(),
            "rule": self.rule,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class CleanserSummary:
    """What one cleanser, with its parameters, was worth over the training sets of a table.

    Attributes:
        cleanse: its name in the table.
        poisoned: sets with poison from which plain training learned a backdoor that works.
        auroc: mean over these; None without any.
        ranked: in how many of them some threshold would catch 95 % of the poison at 1 % of the clean samples.
        cleansed: in how many its own decision did.
        clean: sets without poison; harmless: of these, how often it removed at most 1 %; lost: mean share removed.
    """

    cleanse: str
    poisoned: int
    auroc: float | None
    ranked: int
    cleansed: int
    clean: int
    harmless: int
    lost: float | None


def cleanse_trial(result: Mapping[str, Any]) -> CleanseTrial | None:
    """From the result of a cell; None without a cleansing."""
    told = result.get("cleanse")
    if told is None:
        return None
    interval = told["auroc_interval_95"]
    points = [_rate(point["true_positive_rate"]) for point in told["operating_points"]]
    at_1, at_5 = points or (Rate(0, 0), Rate(0, 0))  # none where nothing is clean
    return CleanseTrial(
        auroc=told["auroc"],
        auroc_interval=None if interval is None else (interval[0], interval[1]),
        at_1=at_1,
        at_5=at_5,
        poison_removed=_rate(told["poison_removed"]),
        clean_removed=_rate(told["clean_removed"]),
        covers_removed=_rate(told["covers_removed"]),
        rule=told["rule"],
        seconds=told["seconds"],
    )


def cleanser_summaries(table: "Table") -> list[CleanserSummary]:
    """One for each cleanser in the order of the table.

    Poison that plain training did not learn has no part in them: it has no features to be found by, and does no harm.
    """
    trials: dict[str, list[tuple[CleanseTrial, bool]]] = {}
    for row in table.rows:
        for trial in row.trials:
            if trial.cleansed is not None:
                learned = trial.success is not None and (trial.success.value or 0.0) > TAKEN
                trials.setdefault(row.cleanse, []).append((trial.cleansed, learned))
    return [_summary(cleanse, made) for cleanse, made in trials.items()]


def _summary(cleanse: str, made: list[tuple[CleanseTrial, bool]]) -> CleanserSummary:
    ill = [trial for trial, learned in made if trial.poisoned and learned]
    well = [trial for trial, _ in made if not trial.poisoned]
    return CleanserSummary(
        cleanse=cleanse,
        poisoned=len(ill),
        auroc=fmean(trial.auroc for trial in ill if trial.auroc is not None) if ill else None,
        ranked=sum(trial.ranked for trial in ill),
        cleansed=sum(trial.outcome == "cleansed" for trial in ill),
        clean=len(well),
        harmless=sum(trial.outcome == "rightly kept" for trial in well),
        lost=fmean(trial.clean_removed.value or 0.0 for trial in well) if well else None,
    )


def _rate(counts: Mapping[str, Any]) -> Rate:
    return Rate(counts["hits"], counts["count"])
