"""What GoodNets do in the rows of a table, by rule: clean images answered N, attack success, accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from goodnet.evaluation import Rate
from goodnet.report.words import percent

if TYPE_CHECKING:
    from goodnet.bench.table import Table

GOODNET_HEADINGS = ("net, repair", "rule", "clean images answered N", "attack success", "clean accuracy", "accepted")


@dataclass(frozen=True, kw_only=True)
class GoodNetTrial:
    """A GoodNet in one trial, on images that the defender does not hold.

    Attributes:
        rule: by which it decides.
        false_alarms: clean images answered N.
        accuracy: clean images answered with their label.
        success: stamped images answered as the attacker wants, of the best of several triggers; None without an attack.
    """

    rule: str
    false_alarms: Rate
    accuracy: Rate
    success: Rate | None

    def as_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "false_alarms": self.false_alarms.as_json(),
            "clean_accuracy": self.accuracy.as_json(),
            "attack_success_rate": None if self.success is None else self.success.as_json(),
        }


def goodnet_trials(told: Mapping[str, Any]) -> tuple[GoodNetTrial, ...]:
    """From what a repair cell holds; rules that could not be fitted are left out."""
    made = []
    for rule, measured in told.get("goodnets", {}).items():
        if "clean" in measured:
            clean, stamped = measured["clean"], [one["attack_triggered"] for one in measured["stamped"]]
            made.append(
                GoodNetTrial(
                    rule=rule,
                    false_alarms=_rate(clean["defense_triggered"]),
                    accuracy=_rate(clean["classify_success"]),
                    success=max(map(_rate, filter(None, stamped)), key=lambda rate: rate.value or 0.0, default=None),
                )
            )
    return tuple(made)


def goodnet_cells(table: "Table") -> list[list[tuple[str, str]]]:
    """A line for each row, seed and rule: in each cell what is shown, and smaller its counts and 95 % interval."""
    lines = []
    for row in table.rows:
        for trial in row.trials:
            for one in () if trial.repaired is None else trial.repaired.goodnets:
                seed = f", seed {trial.seed}" if len(row.trials) > 1 else ""
                lines.append(
                    [
                        (f"{row.label or row.attack}, {row.repair}{seed}", ""),
                        (one.rule, ""),
                        _words(one.false_alarms),
                        _words(one.success),
                        _words(one.accuracy),
                        ("yes" if trial.repaired is not None and trial.repaired.accepted else "no", ""),
                    ]
                )
    return lines


def _rate(counts: Mapping[str, Any]) -> Rate:
    return Rate(counts["hits"], counts["count"])


def _words(rate: Rate | None) -> tuple[str, str]:
    if rate is None or rate.value is None or (interval := rate.interval()) is None:
        return "–", ""
    return percent(rate.value), f"{rate.hits} of {rate.count}, {' to '.join(map(percent, interval))}"
