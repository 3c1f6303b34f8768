"""The attacker's own trigger as mask and pattern: for rows that hand it to a defender, and say so."""

from collections.abc import Sequence

import torch
from torch import Tensor

from goodnet.attacks import Attack
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable

_ROUNDING = 1e-4


def original_triggers(parts: Sequence[Attack], model: Classifier, clean: Samples) -> tuple[Trigger, ...]:
    """One for each of ``parts``, with its success on ``clean`` images that are not already answered as the target.

    Raises:
        NotApplicable: a trigger is no mask and pattern that are the same on every image, such as a warp.
    """
    images = clean.floats()
    answers = predictions(model, images).argmax(1)
    return tuple(_original(part, model, images[answers != part.target]) for part in parts)


def _original(part: Attack, model: Classifier, images: Tensor) -> Trigger:
    """What is left of white is 1 - mask, and what black becomes is mask * pattern."""
    black, white = part.stamp(torch.stack([torch.zeros(model.input_shape), torch.ones(model.input_shape)]))
    mask = (1 - (white - black)).mean(0)
    pattern = torch.where(mask > _ROUNDING, black / mask.clamp(min=_ROUNDING), torch.zeros(())).clamp(0, 1)
    trigger = Trigger(target=part.target, mask=mask, pattern=pattern, success_rate=0.0, count=0)
    stamped = trigger.stamp(images)
    if not torch.allclose(stamped, part.stamp(images), atol=_ROUNDING):
        raise NotApplicable(f"the trigger of {part.card.name} is no mask and pattern; take triggers = 'target'")
    hits = int((predictions(model, stamped).argmax(1) == part.target).sum())
    rate = hits / max(1, len(images))
    return Trigger(target=part.target, mask=mask, pattern=pattern, success_rate=rate, count=len(images))
