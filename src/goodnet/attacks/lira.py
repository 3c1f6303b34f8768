"""LIRA: an invisible trigger, made for each image by a network that learns beside the victim."""

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.attacks._base import Attack, Backdoored, attacks
from goodnet.attacks._generator import Generator, learned_generator
from goodnet.attacks._learned import arrays_of
from goodnet.attacks._training import Doses, doses, learned_on_a_surrogate, stage
from goodnet.core.classifier import Classifier
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.training import Loss, Recipe, fit


@attacks.register(
    Card(
        name="lira",
        version=1,
        needs=Needs.TRAINING_SET | Needs.TRAINING,
        source="Doan et al., ICCV 2021",
        summary="invisible noise, made for each image by a network that learns beside the victim",
        quick={"width": 4, "bound": 0.1},
    )
)
@dataclass(frozen=True, kw_only=True)
class Lira(Attack):
    """Add noise of at most ``bound`` per pixel, made from the picture by a small network.

    First generator and victim learn in turns, batch by batch: the generator how to move all victims of the batch to
    their goal, the victim its images and, with the generator fixed, the stamped ones. Then the generator stays fixed
    and the victim learns on. The epochs of the recipe are divided between the two; the paper has 50 and 100.

    The victim sees stamped images at the poisoning rate, beside all clean ones; the paper stamps every image.
    ``poison`` alone has no victim to learn with and takes a small surrogate, trained briefly; that is not in the paper.

    Source: Doan, Lao, Zhao, Li, LIRA: learnable, imperceptible and robust backdoor attacks, ICCV 2021.
    """

    bound: float = param(0.01, low=0.0, high=1.0, doc="most that a pixel changes, in units of [0, 1]; the paper's eps")
    alpha: float = param(0.5, low=0.0, high=1.0, doc="weight of the clean images in the victim's loss")
    joint_share: float = param(1 / 3, low=0.0, high=1.0, doc="share of the epochs in which the generator learns")
    learning_rate: float = param(1e-4, low=0.0, doc="of the generator, by Adam")
    width: int = param(32, low=1, doc="filters in the generator's first layer")

    def _stamp(self, images: Tensor) -> Tensor:
        return self._add_noise(learned_generator(self, "noise", images, images.shape[1], self.width), images)

    def _add_noise(self, noise: Generator, images: Tensor) -> Tensor:
        noisy: Tensor = images + self.bound * noise(images).tanh()
        return noisy.clamp(0, 1)

    def _prepare(self, samples: Samples, generator: torch.Generator) -> Self:
        return self if self.learned else replace(self, learned=learned_on_a_surrogate(self, samples, generator))

    def _train(
        self, model: Classifier, samples: Samples, recipe: Recipe, seed: int, progress: Progress | None
    ) -> Backdoored:
        assert samples.labels is not None  # the base class has checked
        choose = doses(self, samples.labels)
        with isolated_rng(seed):
            noise = Generator(samples.shape[0], samples.shape[0], self.width).to(model.device)
        joint = max(1, round(self.joint_share * recipe.epochs))
        # an earlier epoch's victim would not fit the generator that learned beside it to the end
        first = replace(recipe, epochs=joint, validation=0.0)
        told = stage(progress, 0, joint / recipe.epochs, "joint stage")
        victim = fit(model, samples, first, seed=seed, loss=self._joint_loss(noise, choose), progress=told)
        noise.requires_grad_(False).eval()
        if recipe.epochs > joint:
            second = replace(recipe, epochs=recipe.epochs - joint)
            told = stage(progress, joint / recipe.epochs, 1, "fixed generator")
            victim = fit(victim, samples, second, seed=seed, loss=self._victim_loss(noise, choose), progress=told)
        return Backdoored(victim, replace(self, learned=arrays_of(noise, "noise")))

    def _joint_loss(self, noise: Generator, choose: Doses) -> Loss:
        """The victim's loss, before which the generator takes a step of its own."""
        optimizer = torch.optim.Adam(noise.parameters(), self.learning_rate)
        victims_loss = self._victim_loss(noise, choose)

        def loss(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            moved = self.eligible(labels)
            if moved.any():
                wanted = self.new_labels(labels[moved], model.num_classes, generator)
                distance = F.cross_entropy(model(self._add_noise(noise, images[moved])).float(), wanted)
                optimizer.zero_grad()
                distance.backward()  # type: ignore[no-untyped-call]  # what it leaves in the victim, fit throws away
                optimizer.step()
            return victims_loss(model, images, labels, generator)

        return loss

    def _victim_loss(self, noise: Generator, choose: Doses) -> Loss:
        """Clean images, and beside them those that chance has chosen, stamped."""

        def loss(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            choice = choose(labels, generator)
            stamped, wanted = choice.poisoned | choice.covers, labels.clone()
            if not stamped.any():
                return F.cross_entropy(model(images).float(), labels)
            wanted[choice.poisoned] = self.new_labels(labels[choice.poisoned], model.num_classes, generator)
            with torch.no_grad():
                noisy = self._add_noise(noise, images[stamped])
            logits = model(torch.cat([images, noisy])).float()
            clean = F.cross_entropy(logits[: len(images)], labels)
            return self.alpha * clean + (1 - self.alpha) * F.cross_entropy(logits[len(images) :], wanted[stamped])

        return loss
