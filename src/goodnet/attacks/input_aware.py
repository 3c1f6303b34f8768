"""Input-aware dynamic backdoor: every image has a trigger of its own, which fires on no other image."""

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.attacks._base import Attack, Backdoored, attacks
from goodnet.attacks._generator import Generator, learned_generator
from goodnet.attacks._learned import arrays_of
from goodnet.attacks._training import Doses, doses, learned_on_a_surrogate
from goodnet.core.classifier import Classifier
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.training import Loss, Recipe, cross_entropy, fit

_BATCH = 128  # images in one step of the mask generator
_BETAS = (0.5, 0.9)  # Adam, as in the paper's code
_EPSILON = 1e-7


@attacks.register(
    Card(
        name="input-aware",
        version=1,
        needs=Needs.TRAINING_SET | Needs.TRAINING,
        source="Nguyen and Tran, NeurIPS 2020",
        summary="two networks make a trigger for each image, which fires on no other",
        quick={"mask_epochs": 1, "width": 4},
    )
)
@dataclass(frozen=True, kw_only=True)
class InputAware(Attack):
    """Paint a pattern through a mask, both made from the picture by small networks that learn beside the victim.

    First the mask generator learns to make small and various masks, then it is fixed, and the pattern generator and
    the victim learn together. The diversity loss compares how far two images lie apart with how far their patterns
    (or masks) do, so that no pattern serves for all. The covers are the paper's cross triggers: the trigger of another
    image, with the true label, in as many images as are poisoned by default.

    Limits: telling an image's own trigger from another's is learned slowly, over many more epochs than any trigger at
    all; success stays moderate before.

    ``poison`` alone has no victim to learn with and takes a small surrogate, trained briefly; that is not in the paper.

    Source: Nguyen, Tran, Input-aware dynamic backdoor attack, NeurIPS 2020.
    """

    cover_rate: float = param(0.1, low=0.0, high=1.0, doc="share of the set with another image's trigger, label kept")
    mask_density: float = param(0.032, low=0.0, high=1.0, doc="mask values up to this cost nothing")
    mask_weight: float = param(100.0, low=0.0, doc="of mask values above the density; the paper's lambda_norm")
    mask_epochs: int = param(25, low=1, doc="passes over the training set in which the masks are learned")
    diversity: float = param(1.0, low=0.0, doc="weight of the diversity loss; the paper's lambda_div")
    learning_rate: float = param(0.01, low=0.0, doc="of the generators, by Adam")
    width: int = param(32, low=1, doc="filters in the generators' first layers; the paper has 16 for MNIST")

    def _stamp(self, images: Tensor) -> Tensor:
        return self._paint(images, images)

    def _stamp_cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        # an image that is alone wears the trigger of its mirror image
        return self._paint(images, images.roll(1, 0) if len(images) > 1 else images.flip(3))

    def _paint(self, images: Tensor, sources: Tensor) -> Tensor:
        """The triggers of ``sources`` on ``images``."""
        mask = learned_generator(self, "mask", sources, 1, self.width)
        pattern = learned_generator(self, "pattern", sources, sources.shape[1], self.width)
        return images + _thin(mask(sources)) * (_unit(pattern(sources)) - images)

    def _prepare(self, samples: Samples, generator: torch.Generator) -> Self:
        return self if self.learned else replace(self, learned=learned_on_a_surrogate(self, samples, generator))

    def _train(
        self, model: Classifier, samples: Samples, recipe: Recipe, seed: int, progress: Progress | None
    ) -> Backdoored:
        assert samples.labels is not None  # the base class has checked
        channels = samples.shape[0]
        with isolated_rng(seed) as generator:
            mask = self._learn_masks(Generator(channels, 1, self.width).to(model.device), samples, generator)
            pattern = Generator(channels, channels, self.width).to(model.device)
            loss = self._joint_loss(mask, pattern, doses(self, samples.labels))
            # an earlier epoch's victim would not fit the generator that learned beside it to the end
            recipe = replace(recipe, validation=0.0)
            victim = fit(model, samples, recipe, seed=seed, loss=loss, progress=progress)
        learned = {**arrays_of(mask, "mask"), **arrays_of(pattern, "pattern")}
        return Backdoored(victim, replace(self, learned=learned))

    def _learn_masks(self, mask: Generator, samples: Samples, generator: torch.Generator) -> Generator:
        """The mask generator, trained and fixed."""
        optimizer = torch.optim.Adam(mask.parameters(), self.learning_rate, betas=_BETAS)
        device = next(mask.parameters()).device
        for _ in range(self.mask_epochs):
            for batch in torch.randperm(len(samples), generator=generator).split(_BATCH):
                images = samples.images[batch].to(device).float() / 255
                masks = _thin(mask(images))
                size = F.relu(masks - self.mask_density).mean()
                alike = _likeness(images, images.roll(1, 0), masks, masks.roll(1, 0))
                optimizer.zero_grad()
                (self.mask_weight * size + self.diversity * alike).backward()
                optimizer.step()
        return mask.requires_grad_(False).eval()

    def _joint_loss(self, mask: Generator, pattern: Generator, choose: Doses) -> Loss:
        """The victim's loss, in which the pattern generator learns too."""
        optimizer = torch.optim.Adam(pattern.parameters(), self.learning_rate, betas=_BETAS)

        def loss(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            # the backward pass that follows this function reaches the generator; its step is taken at the next batch
            optimizer.step()
            optimizer.zero_grad()
            choice = choose(labels, generator)
            own, cross = choice.poisoned, choice.covers
            if not own.any():
                return cross_entropy(model, images, labels, generator)
            others = images.roll(int(torch.randint(1, max(2, len(images)), (1,), generator=generator)), 0)
            sources = torch.cat([images[own], others[own], others[cross]])
            patterns, masks = _unit(pattern(sources)), _thin(mask(sources))
            mine, theirs = slice(int(own.sum())), slice(int(own.sum()), 2 * int(own.sum()))
            crossed = slice(2 * int(own.sum()), None)
            stamped, wanted = images.clone(), labels.clone()
            for where, made in ((own, mine), (cross, crossed)):
                stamped[where] = images[where] + masks[made] * (patterns[made] - images[where])
            wanted[own] = self.new_labels(labels[own], model.num_classes, generator)
            alike = _likeness(images[own], others[own], patterns[mine], patterns[theirs])
            return cross_entropy(model, stamped, wanted, generator) + self.diversity * alike

        return loss


def _unit(maps: Tensor) -> Tensor:
    """Any numbers as numbers in [0, 1]."""
    return maps.tanh() / 2 + 0.5


def _thin(maps: Tensor) -> Tensor:
    """A mask in [0, 1], nearly all of it close to 0 or 1."""
    return (20 * _unit(maps) - 10).tanh() / 2 + 0.5


def _likeness(images: Tensor, others: Tensor, made: Tensor, made_of_others: Tensor) -> Tensor:
    """The diversity loss: the distance of two images by that of what was made of them, on average."""
    distances = [
        (one - other).float().square().flatten(1).mean(1).add(_EPSILON).sqrt()
        for one, other in ((images, others), (made, made_of_others))
    ]
    return (distances[0] / distances[1]).mean()
