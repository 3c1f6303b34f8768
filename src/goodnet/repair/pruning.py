"""Pruning: silence the channels that clean images hardly use, in the hope that the backdoor lives there."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import ParameterError, UsageError
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._channels import (
    Channel,
    answers_along,
    chosen_convolutions,
    convolutions,
    pruning_order,
    silence,
)
from goodnet.repair._tuning import wanted_answers

Curve = tuple[float, ...]
"""The share of images answered as wanted with 0, 1, 2 ... channels pruned."""

MARKS = (0.02, 0.04, 0.1)
"""Losses of accuracy that curves are marked at, as in the reports on the CSAW networks."""

_STAMPED = 500  # images at most that a trigger's success is counted on along the curve


def pruning_curve(
    model: Classifier,
    images: Tensor,
    *,
    ranked_on: Tensor,
    layers: int = 1,
    layer: str | None = None,
    criterion: str = "mean",
) -> Tensor:
    """Answers int64 (1 + channels, N): row k is what ``images`` are answered when k channels are pruned.

    For curves of accuracy and of attack success: the same channels go, in the same order, as in ``Pruning`` with these
    parameters on a defender whose clean images are ``ranked_on``. ``model`` is untouched.
    """
    order = pruning_order(model, chosen_convolutions(model, layers, layer), ranked_on, criterion)
    return torch.stack(list(answers_along(model, images, order)))


def last_good(curve: Curve, drop: float) -> int:
    """How many channels can go before the first step that loses more than ``drop`` against the start."""
    beyond = (count for count, share in enumerate(curve) if curve[0] - share > drop + 1e-9)
    return next(beyond, len(curve)) - 1


def pruned_until(suspect: Classifier, evidence: Mapping[str, Any], drop: float) -> Classifier:
    """The last net along a repair's curve that loses at most ``drop``: a copy of ``suspect``, pruned and not tuned.

    Args:
        suspect: the model before the repair, on the CPU or not; untouched.
        evidence: of a repair of it by pruning, or by fine-pruning that tunes once.
        drop: share of the defender's images, in [0, 1].

    Raises:
        UsageError: the repair has no such curve.
    """
    if "order" not in evidence:
        raise UsageError("models along the curve exist for pruning, and for fine-pruning that tunes once at the end")
    count = last_good(tuple(point["accuracy"] for point in evidence["curve"]), drop)
    found, made = {one.name: one for one in convolutions(suspect)}, copy.deepcopy(suspect)
    silence(made, [Channel(found[one["layer"]], one["channel"]) for one in evidence["order"][:count]])
    entry = {"repair": "pruning", "channels_pruned": count, "accuracy_drop": drop}
    made.origin = replace(made.origin, history=(*made.origin.history, entry))
    return made


@repairers.register(
    Card(
        name="pruning",
        version=1,
        needs=Needs.MODEL | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS | Needs.TRIGGERS,
        source="Liu et al., Fine-Pruning, RAID 2018",
        summary="silences the channels that clean images use least",
        assumes=("convolutions",),
    )
)
@dataclass(frozen=True, kw_only=True)
class Pruning(Repairer):
    """Silence the channels of the last convolutions that clean images use least.

    What it does: ranks the channels by their activity on the defender's images and zeroes them in this order (what
    that means with BatchNorm: see ``repair._channels``), until the accuracy on these images would fall by more than
    ``accuracy_drop``; the last net that is within it is kept. Or a given count or share. Several layers are
    pruned jointly by rank. Evidence holds the whole curve, also beyond the point where it stopped, and where it would
    have stopped at other tolerances (``pruned_until`` makes these models). Where triggers are held, it holds their
    success along the curve too; they change nothing else.
    Needs: the model and some hundreds of clean images; without labels, agreement with the suspect stands in for
    accuracy.
    Limits: the tolerance is measured on the images that ranked the channels, some points better than on others. A
    backdoor that shares its channels with clean features stays; a pruning-aware attack makes sure of that.
    Source: Liu, Dolan-Gavitt, Garg, Fine-Pruning, RAID 2018, section 3.1. The authors' code ranks on the test images
    and prunes 48 of 60 channels whatever is lost; we follow the paper.
    """

    layers: int = param(1, low=1, doc="how many of the last convolutions are pruned")
    layer: str | None = param(None, doc="name of the one convolution that is pruned instead of the last ones")
    criterion: Literal["mean", "apoz"] = param(
        "mean", choices=("mean", "apoz"), doc="activity: mean activation, or share of activations above zero"
    )
    channels: int | None = param(None, low=0, doc="prune so many channels, whatever accuracy is lost")
    share: float | None = param(None, low=0.0, high=1.0, doc="prune this share of the channels, likewise")
    accuracy_drop: float = param(
        0.04, low=0.0, high=1.0, doc="accuracy that may be lost, where no count or share is set"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels is not None and self.share is not None:
            raise ParameterError(f"{type(self).__name__}.channels and .share are both set; set one of them")
        if self.channels is not None and not isinstance(self.channels, int):
            raise ParameterError(f"{type(self).__name__}.channels must be a whole number, got {self.channels!r}")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        fixed, _ = self._prune(defender, run, progress_until=1.0)
        return fixed

    def _order(self, model: Classifier, images: Tensor) -> list[Channel]:
        return pruning_order(model, chosen_convolutions(model, self.layers, self.layer), images, self.criterion)

    def _prune(self, defender: Defender, run: Run, progress_until: float) -> tuple[Fixed, list[Channel]]:
        """The pruned model, and which channels went."""
        assert defender.model is not None
        assert defender.clean is not None
        images = defender.clean.images
        order = self._order(defender.model, images)
        curve = _measured(defender, order, run, progress_until)
        gone = order[: self._count(curve, len(order))]
        silence(defender.model, gone)
        notes = {"channels": len(order), "channels_pruned": len(gone), "accuracy_before": curve[0]}
        if len(gone) < len(curve):  # else time was up before the curve got there
            notes["accuracy_after"] = curve[len(gone)]
        evidence = {
            **evidence_of(defender, range(len(curve)), curve, gone),
            "order": [_place(channel) for channel in order],
        }
        if defender.triggers:
            for point, success in zip(evidence["curve"], _successes(defender, order, len(curve)), strict=True):
                point["success"] = success
        return Fixed(model=defender.model, notes=notes, counts={"images": len(images)}, evidence=evidence), gone

    def _count(self, curve: Curve, all_channels: int) -> int:
        """How many channels to prune."""
        if self.share is not None:
            return round(self.share * all_channels)
        if self.channels is not None:
            return min(self.channels, all_channels)
        return last_good(curve, self.accuracy_drop)


def evidence_of(
    defender: Defender, counts: Sequence[int], shares: Sequence[float], gone: Sequence[Channel]
) -> dict[str, Any]:
    """What was measured, how many channels each tolerance allows, and which went, in this order."""
    assert defender.clean is not None
    return {
        "measure": "agreement" if defender.clean.labels is None else "accuracy",
        "curve": [{"channels": count, "accuracy": share} for count, share in zip(counts, shares, strict=True)],
        "marks": [{"accuracy_drop": drop, "channels": counts[last_good(tuple(shares), drop)]} for drop in MARKS],
        "pruned": [_place(channel) for channel in gone],
    }


def _place(channel: Channel) -> dict[str, Any]:
    return {"layer": channel.convolution.name, "channel": channel.index}


def _successes(defender: Defender, order: Sequence[Channel], count: int) -> list[float]:
    """The largest share that one of the triggers turns, of images not its target's, with 0, 1 ... channels pruned."""
    assert defender.model is not None
    assert defender.clean is not None
    bare, labels = predictions(defender.model, defender.clean.images).argmax(1), labels_of(defender)
    best = torch.zeros(count, dtype=torch.float64)
    for trigger in defender.triggers or ():
        victims = ((bare != trigger.target) & (labels != trigger.target)).nonzero()[:_STAMPED, 0]
        if len(victims):
            stamped = trigger.stamp(defender.clean.pick(victims).floats())
            along = zip(range(count), answers_along(defender.model, stamped, order), strict=False)
            turned = [float((answers == trigger.target).double().mean()) for _, answers in along]
            best = best.maximum(torch.tensor(turned, dtype=torch.float64))
    values: list[float] = best.tolist()
    return values


def labels_of(defender: Defender) -> Tensor:
    """The label that each clean image shall be answered with (N,): its own, or the suspect's."""
    wanted = wanted_answers(defender)
    return wanted if wanted.ndim == 1 else wanted.argmax(1)


def _measured(defender: Defender, order: Sequence[Channel], run: Run, progress_until: float) -> Curve:
    """The curve on the defender's images; it ends early when time is up."""
    assert defender.model is not None
    assert defender.clean is not None
    wanted = labels_of(defender)
    shares: list[float] = []
    for answers in answers_along(defender.model, defender.clean.images, order):
        shares.append(float((answers == wanted).double().mean()))
        run.progress(progress_until * len(shares) / (1 + len(order)), f"{len(shares) - 1} channels pruned")
        if run.seconds_left() < 0:
            break
    return tuple(shares)
