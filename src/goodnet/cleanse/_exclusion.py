"""Exclusionary reclassification: what does a network say of a group that it has never seen?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.cleanse._training import trained_anew
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.training import Recipe

_BATCH = 64
_LEARNED = 0.5  # share of a label's other samples that the network must know before it is asked about the group


@dataclass(frozen=True)
class Answers:
    """What a network trained without a group says of it.

    Attributes:
        learned: share of the label's other samples that it answers with the label.
        own, other: how many of the group are answered with the label, and with the most frequent other one.
    """

    learned: float
    own: int
    other: int

    @property
    def score(self) -> float:
        """From 0, all are answered with their label, to 1."""
        return self.other / max(self.own + self.other, 1)

    def speak_against(self, ratio: float) -> bool:
        """Whether another label is given ``ratio`` times as often as the own, by a network that has learned that."""
        return self.learned >= _LEARNED and self.other > ratio * self.own


def answers_about(
    model: Classifier, held: Samples, groups: dict[int, Tensor], epochs: int, fewest_steps: int, run: Run
) -> dict[int, Answers]:
    """Label → answers about its group (positions), by one network like ``model`` trained without all of the groups.

    It sees ``epochs`` passes, or more where these are fewer than ``fewest_steps``.
    """
    assert held.labels is not None
    if not groups:
        return {}
    rest = torch.ones(len(held), dtype=torch.bool)
    for group in groups.values():
        rest[group] = False
    passes = max(epochs, fewest_steps * _BATCH // max(int(rest.sum()), 1))
    recipe = Recipe(epochs=passes, learning_rate=1e-3, optimizer="adam", batch_size=_BATCH)
    seed = int(torch.randint(2**31, (1,), generator=run.generator))
    said = predictions(trained_anew(model, held.pick(rest), recipe, run, seed=seed), held.images).argmax(1)
    found = {}
    for label, group in groups.items():
        counted = said[group].bincount(minlength=model.num_classes)
        others = counted[torch.arange(len(counted)) != label]
        mine = rest & (held.labels == label)
        learned = float((said[mine] == label).float().mean()) if mine.any() else 0.0
        found[label] = Answers(learned, int(counted[label]), int(others.max()))
    return found
