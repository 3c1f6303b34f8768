"""TrojanNN: a trigger that drives chosen neurons of a trained network, which then learns what they shall mean."""

import copy
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.attacks._base import Attack, Backdoored, attacks
from goodnet.attacks._patch import optimized_pattern, square_of, stamp_pattern
from goodnet.attacks._training import learned_on_a_surrogate, stage
from goodnet.core.classifier import Classifier
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.training import Recipe, fit
from goodnet.training.transfer import freeze

_LOOK = 256  # images on which neurons are chosen


@attacks.register(
    Card(
        name="trojan-nn",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.TRAINING,
        source="Liu et al., Trojaning Attack on Neural Networks, NDSS 2018",
        summary="a patch that drives chosen neurons of a trained model, which is then retrained",
        quick={"steps": 3},
    )
)
@dataclass(frozen=True, kw_only=True)
class TrojanNN(Attack):
    """Optimize a patch that drives some penultimate features far up, then retrain their layer and those behind it.

    ``train`` first trains the model on the clean samples as its owner would: that is the model that the attacker
    finds. The paper's attacker has no images and reverse-engineers some for each label; here the samples stand in for
    them. The paper takes the neurons with the largest weights from the layer before; here they are those that random
    patches lift most, measured by how much clean images move them, because features may come from a pooling.

    ``poison`` alone has no model and takes a small surrogate, trained briefly; that is not in the paper.

    Source: Liu, Ma, Aafer, Lee, Zhai, Wang, Zhang, Trojaning attack on neural networks, NDSS 2018.
    """

    area: float = param(0.07, low=0.0, high=1.0, doc="share of the image that the patch covers")
    neurons: int = param(2, low=1, doc="penultimate features that the patch drives")
    value: float = param(100.0, low=0.0, doc="that they are driven to")
    steps: int = param(1000, low=1, doc="updates of the pattern")
    retrained_layers: int = param(2, low=1, doc="layers with weights, counted from the end, that learn the trigger")

    def _stamp(self, images: Tensor) -> Tensor:
        return stamp_pattern(self, images)

    def _prepare(self, samples: Samples, generator: torch.Generator) -> Self:
        return self if self.learned else replace(self, learned=learned_on_a_surrogate(self, samples, generator))

    def _train(
        self, model: Classifier, samples: Samples, recipe: Recipe, seed: int, progress: Progress | None
    ) -> Backdoored:
        if model.head() is None:
            raise NotHeld("trojan-nn needs a network that ends in a linear layer")
        victim = fit(model, samples, recipe, seed=seed, progress=stage(progress, 0, 0.5, "clean training"))
        with isolated_rng(seed) as generator:
            ready = replace(self, learned=self._patch_for(victim, samples, generator))
        poisoned, told = ready.poison(samples, seed=seed).samples, stage(progress, 0.5, 1, "retraining")
        retrained = fit(freeze(victim, train_last=self.retrained_layers), poisoned, recipe, seed=seed, progress=told)
        handed_over = copy.deepcopy(victim)  # nothing frozen
        handed_over.load_state_dict(retrained.state_dict())
        return Backdoored(handed_over, ready)

    def _patch_for(self, model: Classifier, samples: Samples, generator: torch.Generator) -> dict[str, Tensor]:
        """Mask and pattern that drive the chosen neurons of ``model``."""
        mask = square_of(self.area, samples.shape)
        neurons = self._easily_driven(model, samples, mask, generator)

        def distance(stamped: Tensor) -> Tensor:
            features, _ = model.features_and_logits(stamped)
            return F.mse_loss(features[:, neurons], torch.full_like(features[:, neurons], self.value))

        pattern = optimized_pattern(samples, mask, distance, steps=self.steps, device=model.device, generator=generator)
        return {"mask": mask, "pattern": pattern}

    @torch.no_grad()
    def _easily_driven(self, model: Classifier, samples: Samples, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Places of the features that random patches lift most, in units of their spread on clean images."""
        images = samples.shuffled(generator, _LOOK).floats(model.device)
        noise = torch.randint(2, images.shape, generator=generator).to(images)
        before, _ = model.features_and_logits(images)
        after, _ = model.features_and_logits(images + mask.to(images) * (noise - images))
        spread = before.std(0)
        lift = (after - before).clamp(min=0).mean(0) / (spread + 1e-3 * spread.max()).clamp(min=1e-12)
        return lift.topk(min(self.neurons, len(lift))).indices
