"""Proof: what a repair kept and what it removed, on images that it never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.rates import Rate
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger


@dataclass(frozen=True, kw_only=True)
class TriggerProof:
    """One reconstructed trigger before and after, on images not already answered as its target by the suspect.

    Attributes:
        target: where it leads.
        before, after: how many stamped images are answered as the target.
        recovered: how many get, after, the answer they should: their label, or what the suspect answers them bare.
        count: out of how many.
    """

    target: int
    before: int
    after: int
    recovered: int
    count: int

    def as_json(self) -> dict[str, Any]:
        """Counts, and the 95 % interval of each share, as JSON values."""
        return {**asdict(self), "intervals_95": _intervals(self.count, asdict(self), ("before", "after", "recovered"))}


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a repair did to a model, in counts of held-out images.

    Attributes:
        labeled: True: "right" means answered with the label; False: answered as the suspect answers.
        before, after: images answered right; without labels ``before`` is all of them.
        count: images.
        triggers: those that were reconstructed on the suspect.
    """

    labeled: bool
    before: int
    after: int
    count: int
    triggers: tuple[TriggerProof, ...]

    @property
    def drop(self) -> float:
        """Share of the images that were answered right before and no longer are, on balance; may be negative."""
        return (self.before - self.after) / max(1, self.count)

    @property
    def success(self) -> float:
        """The largest share that a reconstructed trigger still turns; 0 without triggers."""
        return max((one.after / one.count for one in self.triggers if one.count), default=0.0)

    @property
    def recovered(self) -> float:
        """Mean share of stamped images that get the answer they should; 1 without triggers."""
        shares = [one.recovered / one.count for one in self.triggers if one.count]
        return sum(shares) / len(shares) if shares else 1.0

    @property
    def margin(self) -> float:
        """How far the share that is right after the repair may be off either way, at 95 %; 1 without images.

        The farther end of the exact interval, in [0, 1]. ``accepts`` compares the shares themselves all the same.
        """
        kept = Rate(self.after, self.count)
        share, interval = kept.value, kept.interval()
        return 1.0 if share is None or interval is None else max(share - interval[0], interval[1] - share)

    def accepts(self, *, most_drop: float, most_success: float) -> bool:
        """Whether the repaired model may take the suspect's place."""
        return self.drop <= most_drop and self.success <= most_success

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, with the 95 % interval of each share."""
        return {
            **asdict(self),
            "triggers": [one.as_json() for one in self.triggers],
            "drop": self.drop,
            "margin_95": self.margin,
            "intervals_95": _intervals(self.count, asdict(self), ("before", "after")),
        }


def prove(suspect: Classifier, repaired: Classifier, held_out: Samples, triggers: Sequence[Trigger]) -> Proof:
    """Compare two models on ``held_out``, bare and under every one of ``triggers``.

    The triggers are reconstructions: that they no longer work does not prove that the attacker's does not.
    """
    old, new = (predictions(model, held_out.images).argmax(1) for model in (suspect, repaired))
    wanted = old if held_out.labels is None else held_out.labels
    return Proof(
        labeled=held_out.labels is not None,
        before=int((old == wanted).sum()),
        after=int((new == wanted).sum()),
        count=len(held_out),
        triggers=tuple(_proof_of(trigger, suspect, repaired, held_out, old, wanted) for trigger in triggers),
    )


def _intervals(count: int, counts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The exact interval of each share; None when nothing was counted."""
    return {name: Rate(counts[name], count).as_json()["interval_95"] for name in names}


def _proof_of(
    trigger: Trigger, suspect: Classifier, repaired: Classifier, held_out: Samples, old: Tensor, wanted: Tensor
) -> TriggerProof:
    victims = (old != trigger.target) & (wanted != trigger.target)
    stamped = trigger.stamp(held_out.pick(victims).floats())
    if not len(stamped):
        return TriggerProof(target=trigger.target, before=0, after=0, recovered=0, count=0)
    before, after = (predictions(model, stamped).argmax(1) for model in (suspect, repaired))
    return TriggerProof(
        target=trigger.target,
        before=int((before == trigger.target).sum()),
        after=int((after == trigger.target).sum()),
        recovered=int((after == wanted[victims]).sum()),
        count=len(stamped),
    )
