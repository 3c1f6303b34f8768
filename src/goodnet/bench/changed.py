"""Changed: a net, and what a repair or a learner makes in its place, measured on the same images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from goodnet.evaluation import Change, Rate, defense_effectiveness, repair_succeeded

TAKEN = 0.1  # attack success up to which there is nothing to repair, as in evaluation.repair
MOST_DROP = 0.03  # accuracy that may be lost, likewise


@dataclass(frozen=True, kw_only=True)
class Changed:
    """Accuracy and attack success without and with a defense, beside the truth that it did not know.

    Attributes:
        accuracy: before and after, on images that the defender does not hold.
        success: of the attack, likewise; None without one.
        seconds: of the defense.
    """

    accuracy: Change
    success: Change | None
    seconds: float

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
        """Whether what was made lost more accuracy than a defense may cost."""
        return (self.accuracy.drop or 0.0) > MOST_DROP + 1e-12

    @property
    def effectiveness(self) -> float | None:
        """Defense effectiveness rating of what was made; None without a backdoor."""
        return defense_effectiveness(self.success, self.accuracy) if self.success and self.backdoored else None

    def changes_as_json(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {
            "clean_accuracy": {"before": self.accuracy.before.as_json(), "after": self.accuracy.after.as_json()},
            "attack_success_rate": None
            if self.success is None
            else {"before": self.success.before.as_json(), "after": self.success.after.as_json()},
            "accuracy_drop": self.accuracy.drop,
            "defense_effectiveness": self.effectiveness,
        }


def changes(evaluation: Mapping[str, Any]) -> tuple[Change, Change | None]:
    """Accuracy and attack success of an ``Evaluation`` as its JSON has them."""
    before, after = evaluation["before"], evaluation["after"]
    hits = before["attack_success_rate"], after["attack_success_rate"]
    return (
        Change(_rate(before["clean_accuracy"]), _rate(after["clean_accuracy"])),
        None if hits[0] is None else Change(_rate(hits[0]), _rate(hits[1])),
    )


def _rate(counts: Mapping[str, Any]) -> Rate:
    return Rate(counts["hits"], counts["count"])
