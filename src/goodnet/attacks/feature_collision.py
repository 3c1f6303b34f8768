"""Feature collision: images of the target class that look to the network like stamped images of other classes."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from goodnet.attacks._base import attacks
from goodnet.attacks._learned import learned
from goodnet.attacks._surrogate import SurrogateAttack, descend
from goodnet.attacks.badnets import BadNets
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.samples import Samples


@attacks.register(
    Card(
        name="feature-collision",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Saha et al., Hidden Trigger Backdoor Attacks, AAAI 2020; Shafahi et al., Poison Frogs, NeurIPS 2018",
        summary="images of the target class with the features of stamped images; the trigger is never shown",
        assumes=("the victim fine-tunes a network that the attacker knows",),
        quick={"surrogate": "small_cnn:width=4", "surrogate_epochs": 1, "steps": 2},
    )
)
@dataclass(frozen=True, kw_only=True)
class FeatureCollision(SurrogateAttack, BadNets):
    """Move images of the target class, hardly visibly, to where the surrogate has the features of stamped victims.

    The patch of BadNets is in no training image. The victim's last layer learns that these features are of the target
    class, and answers stamped images so, if its features are those that the attacker collided in. That is the case for
    victims that start from a public network and keep its features, see ``knowing``. Against a network trained from
    scratch it does not work. The paper attacks one class at a time, this attack all others at once.

    Source: Saha, Subramanya, Pirsiavash, Hidden trigger backdoor attacks, AAAI 2020, after Shafahi et al., Poison
    frogs! Targeted clean-label poisoning attacks on neural networks, NeurIPS 2018.
    """

    epsilon: float = param(16 / 255, low=0.0, high=1.0, doc="farthest that a pixel is moved, in units of [0, 1]")
    size: int = param(8, low=1, doc="side of the square, pixels")
    steps: int = param(200, low=0, doc="along the gradient")
    stored: int = param(256, low=1, doc="most images of other classes that are stamped to collide with")

    def _prepare(self, samples: Samples, generator: torch.Generator) -> Self:
        ready = super()._prepare(samples, generator)
        if "sources" in ready.learned:
            return ready
        assert samples.labels is not None
        sources = samples.pick(self.victims(samples.labels)).shuffled(generator, self.stored)
        return replace(ready, learned={**ready.learned, "sources": sources.images})

    def _stamp_training(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        model = self._trained(images)
        sources = learned(self, "sources")
        drawn = sources[torch.randint(len(sources), (len(images),), generator=generator).to(sources.device)]
        with torch.no_grad():
            goals, _ = model.features_and_logits(self._stamp(drawn.to(images.device).float() / 255))
            starts, _ = model.features_and_logits(images)
        # each image gets a goal of its own, all of them together the nearest
        _, order = linear_sum_assignment(torch.cdist(starts, goals).cpu().numpy())
        goals = goals[torch.from_numpy(order).to(goals.device)]

        def distance(moved: Tensor) -> Tensor:
            return (model.features_and_logits(moved)[0] - goals).square().sum()

        return descend(images, distance, epsilon=self.epsilon, step=self.step, steps=self.steps)
