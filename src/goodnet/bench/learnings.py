"""What a learner made of a training set in one trial, and what a learner was worth over all rows of a table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from goodnet.bench.changed import Changed, changes
from goodnet.evaluation import Rate

if TYPE_CHECKING:
    from goodnet.bench.table import Table

LEARN_OUTCOMES = ("learned clean", "no harm", "backdoor left", "harmed")


@dataclass(frozen=True, kw_only=True)
class LearnTrial(Changed):
    """A net that was learned in spite of the poison; before is the net that was trained plainly on the same set.

    Attributes:
        poison_distrusted, clean_distrusted: what it learned nothing from, or unlearned; None where it makes no choice.
    """

    poison_distrusted: Rate | None
    clean_distrusted: Rate | None

    @property
    def outcome(self) -> str:
        """One of ``LEARN_OUTCOMES``."""
        if self.harmed:
            return "harmed"
        if not self.backdoored:
            return "no harm"
        return "learned clean" if self.succeeded else "backdoor left"

    def as_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            **self.changes_as_json(),
            "poison_distrusted": None if self.poison_distrusted is None else self.poison_distrusted.as_json(),
            "clean_distrusted": None if self.clean_distrusted is None else self.clean_distrusted.as_json(),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class LearnerSummary:
    """What one learner, with its parameters, was worth over the training sets of a table.

    Attributes:
        learn: its name in the table.
        backdoored: sets from which plain training learned a backdoor that works; succeeded: of these, how often the
            learner's net has none left and lost at most three points.
        success, drop: mean attack success left and mean loss of accuracy over them; None without any.
        nets: all nets; harmed: how many lost more than three points.
        clean_drop: mean loss where plain training learned no backdoor; None without any.
    """

    learn: str
    backdoored: int
    succeeded: int
    success: float | None
    drop: float | None
    nets: int
    harmed: int
    clean_drop: float | None


def learn_trial(result: Mapping[str, Any]) -> LearnTrial | None:
    """From the result of a cell; None without a learner."""
    told = result.get("learn")
    if told is None:
        return None
    accuracy, success = changes(told["evaluation"])
    return LearnTrial(
        accuracy=accuracy,
        success=success,
        seconds=told["seconds"],
        poison_distrusted=_rate(told["poison_distrusted"]),
        clean_distrusted=_rate(told["clean_distrusted"]),
    )


def learner_summaries(table: "Table") -> list[LearnerSummary]:
    """One for each learner in the order of the table."""
    trials: dict[str, list[LearnTrial]] = {}
    for row in table.rows:
        for trial in row.trials:
            if trial.learned is not None:
                trials.setdefault(row.learn, []).append(trial.learned)
    return [_summary(learn, made) for learn, made in trials.items()]


def _summary(learn: str, made: list[LearnTrial]) -> LearnerSummary:
    ill = [trial for trial in made if trial.backdoored]
    return LearnerSummary(
        learn=learn,
        backdoored=len(ill),
        succeeded=sum(trial.succeeded is True for trial in ill),
        success=_mean(trial.success.after.value for trial in ill if trial.success is not None),
        drop=_mean(trial.accuracy.drop for trial in ill),
        nets=len(made),
        harmed=sum(trial.harmed for trial in made),
        clean_drop=_mean(trial.accuracy.drop for trial in made if not trial.backdoored),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _rate(counts: Mapping[str, Any] | None) -> Rate | None:
    return None if counts is None else Rate(counts["hits"], counts["count"])
