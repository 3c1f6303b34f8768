"""Proof: what a repair kept and what it removed, on images that it never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.rates import Rate
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger

_SHIFT = 2  # pixels, as much as the repairers that train shift their images


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
        lost, won: images right before and not after, and the other way round.
        shifted_before, shifted_after: images answered right when each is shifted by up to two pixels.
        count: images.
        triggers: those that were reconstructed on the suspect.
    """

    labeled: bool
    before: int
    after: int
    lost: int
    won: int
    shifted_before: int
    shifted_after: int
    count: int
    triggers: tuple[TriggerProof, ...]

    @property
    def drop(self) -> float:
        """Share of the images that were answered right before and no longer are, on balance; may be negative."""
        return (self.before - self.after) / max(1, self.count)

    @property
    def drop_at_most(self) -> float:
        """The bad end of ``drop``: with 95 % confidence no more is lost; 1 without images.

        Lost and won images each have an exact interval; the most that may be lost less the least that may be won.
        """
        lost, won = (Rate(hits, self.count).interval() for hits in (self.lost, self.won))
        return 1.0 if lost is None or won is None else lost[1] - won[0]

    @property
    def harm(self) -> float:
        """``drop``, or that on the shifted images where it is larger.

        A suspect knows the images that it was trained on too well: it, and what is made of it, answer them right where
        other images of the same kind are lost. Shifted they are new to it.
        """
        return max(self.drop, self.shifted_drop)

    @property
    def shifted_drop(self) -> float:
        """``drop`` on the shifted images."""
        return (self.shifted_before - self.shifted_after) / max(1, self.count)

    @property
    def success_at_most(self) -> float:
        """The bad end of ``success``, at 95 %; 0 without triggers, 1 for one without images."""
        ends = (Rate(one.after, one.count).interval() or (0.0, 1.0) for one in self.triggers)
        return max((high for _, high in ends), default=0.0)

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

        The farther end of the exact interval, in [0, 1].
        """
        kept = Rate(self.after, self.count)
        share, interval = kept.value, kept.interval()
        return 1.0 if share is None or interval is None else max(share - interval[0], interval[1] - share)

    def promises(self, *, most_drop: float, most_success: float) -> bool:
        """Whether the shares themselves, with no regard to how few the images are, are good enough."""
        return self.harm <= most_drop and self.success <= most_success

    def accepts(self, *, most_drop: float, most_success: float) -> bool:
        """Whether the repaired model may take the suspect's place: also at the bad ends of the shares."""
        sure = self.drop_at_most <= most_drop and self.success_at_most <= most_success
        return sure and self.promises(most_drop=most_drop, most_success=most_success)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, with the 95 % interval of each share."""
        return {
            **asdict(self),
            "triggers": [one.as_json() for one in self.triggers],
            "drop": self.drop,
            "drop_at_most": self.drop_at_most,
            "harm": self.harm,
            "margin_95": self.margin,
            "intervals_95": _intervals(self.count, asdict(self), ("before", "after")),
        }


def shifted(images: Tensor) -> Tensor:
    """Images (N, C, H, W), each moved by up to two pixels along both axes; the border is repeated. Always the same."""
    generator = torch.Generator().manual_seed(0)
    height, width = images.shape[2:]
    wide = F.pad(images.float(), (_SHIFT,) * 4, mode="replicate").to(images.dtype)
    corners = torch.randint(2 * _SHIFT + 1, (len(images), 2), generator=generator).tolist()
    cuts = [image[:, top : top + height, left : left + width] for image, (top, left) in zip(wide, corners, strict=True)]
    return torch.stack(cuts) if cuts else images


def prove(suspect: Classifier, repaired: Classifier, held_out: Samples, triggers: Sequence[Trigger]) -> Proof:
    """Compare two models on ``held_out``, bare and under every one of ``triggers``.

    The triggers are reconstructions: that they no longer work does not prove that the attacker's does not.
    """
    old, new = (predictions(model, held_out.images).argmax(1) for model in (suspect, repaired))
    wanted = old if held_out.labels is None else held_out.labels
    moved = shifted(held_out.images)
    moved_old, moved_new = (predictions(model, moved).argmax(1) for model in (suspect, repaired))
    return Proof(
        labeled=held_out.labels is not None,
        before=int((old == wanted).sum()),
        after=int((new == wanted).sum()),
        lost=int(((old == wanted) & (new != wanted)).sum()),
        won=int(((old != wanted) & (new == wanted)).sum()),
        shifted_before=int((moved_old == wanted).sum()),
        shifted_after=int((moved_new == wanted).sum()),
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
