"""Calibration: fit a GoodNet's thresholds to a false-alarm rate, and say what that costs and catches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.rates import Rate
from goodnet.core.registry import unknown_name
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import ParameterError, UnknownName
from goodnet.guard.goodnet import Calibration, GoodNet, Price, probabilities
from goodnet.guard.rules import RULES, LostConfidence, Rule, SecondOpinion, allowed, lost_confidence
from goodnet.repair.files import FileRepair

_POINTS = 64  # of a price curve


def fit_goodnet(
    badnet: Classifier,
    repaired: Classifier,
    clean: Samples,
    *,
    rule: str = LostConfidence.name,
    rate: float = 0.02,
    triggers: Sequence[Trigger] = (),
) -> GoodNet:
    """A GoodNet whose thresholds answer N on a share of at most ``rate`` of clean images.

    Args:
        badnet, repaired: before and after a repair.
        clean: images that neither the audit nor the repair has seen, at least 1 / rate - 1 of them; no labels needed.
        rule: "lost-confidence", "second-opinion", "disagreement" (which has no threshold, and keeps no rate) or
            "decision-tree".
        rate: the false-alarm rate, in (0, 1).
        triggers: reconstructed ones, for the price curve and the thresholds of the decision tree.

    Raises:
        NotHeld: too few clean images for this rate, or no thresholds keep it.
        ParameterError: ``rate`` is out of its range, or the networks are not of one shape.
        UnknownName: there is no such rule.
    """
    if not 0 < rate < 1:
        raise ParameterError(f"rate must be in (0, 1), got {rate!r}")
    if rule not in RULES:
        raise UnknownName(unknown_name("rule", rule, tuple(RULES)))
    GoodNet(badnet, repaired)  # of one shape
    bad, good = (probabilities(model, clean.images) for model in (badnet, repaired))
    images, targets = _stamped(clean, bad.argmax(1), triggers)
    stamped = None
    if len(targets):
        stamped = probabilities(badnet, images), probabilities(repaired, images)
    fitted = RULES[rule].fitted(bad, good, rate, stamped)
    alarms, answers = _alarms(fitted, bad, good), None if stamped is None else fitted.answers(*stamped)
    calibration = Calibration(
        rate=rate,
        count=len(bad),
        false_alarms=alarms,
        stamped=len(targets),
        caught=0 if answers is None else int((answers == badnet.num_classes).sum()),
        succeeded=0 if answers is None else int((answers == targets).sum()),
        prices=_prices(bad, good, stamped, targets, SecondOpinion if rule == SecondOpinion.name else LostConfidence),
    )
    return GoodNet(badnet, repaired, fitted, calibration)


def goodnet_of(
    result: FileRepair, *, rate: float = 0.02, most_success: float = 0.1, unproved: bool = False
) -> GoodNet | None:
    """The GoodNet that a repair is good for, fitted on the images aside; None where there is none.

    A repair that was accepted answers itself, by ``LostConfidence``. One that was not is asked for a second opinion:
    the suspect's own answers stand, or N. That is offered where the reconstructed triggers show what it is good for:
    with 95 % confidence at most ``most_success`` of the images under them go to the target.

    Args:
        result: of ``repair_file`` or ``repair_model``.
        rate: the false-alarm rate, in (0, 1).
        most_success: in [0, 1].
        unproved: offer a second opinion also where there is no trigger to show what it is good for, such as one that
            shall only fill a quarantine.
    """
    model = result.model if result.accepted else result.second_opinion
    if model is None or not allowed(len(result.aside), rate):
        return None
    rule = LostConfidence.name if result.accepted else SecondOpinion.name
    made = fit_goodnet(result.suspect, model, result.aside, rule=rule, rate=rate, triggers=result.triggers)
    fitted = made.calibration
    assert fitted is not None
    left = Rate(fitted.succeeded, fitted.stamped).interval()
    shown = unproved if left is None else left[1] <= most_success
    return made if result.accepted or shown else None


def _stamped(clean: Samples, answers: Tensor, triggers: Sequence[Trigger]) -> tuple[Tensor, Tensor]:
    """Float images under every trigger, those left out that the BadNet answers with the target as they are; targets."""
    parts = [trigger.stamp(clean.pick(answers != trigger.target).floats()) for trigger in triggers]
    targets = [torch.full((len(part),), one.target) for part, one in zip(parts, triggers, strict=True)]
    if not parts:
        return torch.zeros(0, *clean.shape), torch.zeros(0, dtype=torch.int64)
    return torch.cat(parts), torch.cat(targets)


def _prices(
    bad: Tensor,
    good: Tensor,
    stamped: tuple[Tensor, Tensor] | None,
    targets: Tensor,
    kind: type[LostConfidence],
) -> tuple[Price, ...]:
    """What every false-alarm rate from none upwards would buy, threshold by threshold."""
    suspicion = lost_confidence(bad, good).sort(descending=True).values.clamp(min=0)
    places = torch.unique((torch.linspace(0, 1, _POINTS) ** 2 * (len(suspicion) - 1)).round().long())  # dense at few
    prices: list[Price] = []
    for limit in dict.fromkeys(suspicion[places].tolist()):
        rule = kind(threshold=limit)
        served = 0 if stamped is None else int((rule.answers(*stamped) == targets).sum())
        prices.append(Price(limit, _alarms(rule, bad, good), len(targets) - served))
    return tuple(prices)


def _alarms(rule: Rule, bad: Tensor, good: Tensor) -> int:
    return int((rule.answers(bad, good) == good.shape[1]).sum())
