"""The clean images that guards compare inputs with."""

import torch
from torch import Tensor

from goodnet.core.classifier import predictions
from goodnet.core.defender import Defender


def rightly_answered(defender: Defender) -> tuple[Tensor, Tensor]:
    """(uint8 images, what the model answers): those answered with their label; all where labels are not held.

    The suspect is right on images without a trigger, so its own answers stand in for labels that nobody has; also for
    labels that it hardly ever gives, which are then of another naming.
    """
    model, clean = defender.model, defender.clean
    assert model is not None
    assert clean is not None
    answers = predictions(model, clean.images).argmax(1) if len(clean) else torch.zeros(0, dtype=torch.int64)
    if clean.labels is None:
        return clean.images, answers
    right = answers == clean.labels
    if 2 * int(right.sum()) < len(right):
        return clean.images, answers
    return clean.images[right], answers[right]
