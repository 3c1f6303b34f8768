"""ANP: prune the channels that a small noise on BatchNorm weights turns against clean images."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.errors import NotApplicable
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._masks import Scales, answer, batch_norms, clip, prune_what_is_closed, split
from goodnet.repair._tuning import wanted_answers


@repairers.register(
    Card(
        name="anp",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Wu and Wang, Adversarial Neuron Pruning Purifies Backdoored Deep Models, NeurIPS 2021",
        summary="prunes channels that are sensitive to adversarial noise on BatchNorm",
        assumes=("BatchNorm",),
        quick={"iterations": 3, "batch_size": 16},
    )
)
@dataclass(frozen=True, kw_only=True)
class Anp(Repairer):
    """Learn a mask of the channels that stays right under adversarial noise, and prune what it closes.

    What it does: for every batch, noise of at most ``noise`` on the weights and biases of every BatchNorm takes a step
    of gradient signs that raises the loss; then masks in [0, 1] on the weights take a step that lowers ``clean_weight``
    * clean loss + (1 - ``clean_weight``) * noisy loss. BatchNorm uses the statistics of the batch meanwhile. Channels
    with a mask at or below a threshold get BatchNorm weight 0 in the suspect itself: the highest threshold at which
    held-out images of the defender's own are still answered right. No other images have a say.
    Needs: the model with gradients, some hundreds of clean images; without labels the suspect's own answers take their
    place.
    Limits: networks without BatchNorm cannot be repaired. What one tolerates is what one prunes: see ``tolerance``.
    Source: Wu and Wang, Adversarial Neuron Pruning Purifies Backdoored Deep Models, NeurIPS 2021. Noise stays within
    its bound, as in the paper; in the published code the step may lead to twice the bound.
    """

    iterations: int = param(2000, low=1, doc="steps of the masks")
    batch_size: int = param(128, low=2, doc="images per step")
    learning_rate: float = param(0.2, low=0.0, doc="of the masks; SGD with momentum 0.9")
    noise: float = param(0.4, low=0.0, doc="bound of the noise, as a share of weight and bias")
    noise_steps: int = param(1, low=1, doc="steps of the noise for each batch")
    clean_weight: float = param(0.2, low=0.0, high=1.0, doc="weight of the loss without noise (alpha)")
    held_out: float = param(0.2, low=0.05, high=0.5, doc="share of the images on which the threshold is chosen")
    tolerance: float = param(0.02, low=0.0, high=1.0, doc="how much accuracy on held-out images pruning may cost")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        assert defender.model is not None
        assert defender.clean is not None
        if not batch_norms(defender.model):
            raise NotApplicable("anp masks the channels of BatchNorm, and this network has none")
        wanted = wanted_answers(defender)
        mine, others = split(len(defender.clean), self.held_out, run.generator)
        masks = self.learn_masks(defender.model, defender.clean.pick(mine), wanted[mine], run)
        return prune_what_is_closed(defender.model, masks, defender.clean.pick(others), wanted[others], self.tolerance)

    def learn_masks(self, model: Classifier, samples: Samples, wanted: Tensor, run: Run) -> Scales:
        """The masks, in [0, 1], of all BatchNorm channels of ``model``, which stays as it is."""
        model = copy.deepcopy(model).train().requires_grad_(False)  # its statistics move with every batch
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images, wanted = samples.images.to(model.device), wanted.to(model.device)
        norms = batch_norms(model)
        masks = {name: torch.ones_like(norm.weight).requires_grad_() for name, norm in norms.items()}
        optimizer = torch.optim.SGD(masks.values(), self.learning_rate, momentum=0.9)
        for step in range(self.iterations):
            size = max(2, min(self.batch_size, len(images)))  # BatchNorm cannot normalize a single image
            batch = torch.randint(len(images), (size,), generator=run.generator).to(images.device)
            seen, right = images[batch].float() / 255, wanted[batch]
            noise = self._worst_noise(model, masks, seen, right, run.generator)
            noisy = F.cross_entropy(answer(model, masks, seen, *noise).float(), right)
            clean = F.cross_entropy(answer(model, masks, seen).float(), right)
            optimizer.zero_grad()
            (self.clean_weight * clean + (1 - self.clean_weight) * noisy).backward()
            optimizer.step()
            clip(masks)
            if step % 20 == 0:
                run.progress(
                    step / self.iterations, f"step {step + 1} of {self.iterations}, loss {float(noisy.detach()):.3f}"
                )
            if run.seconds_left() < 0:
                break
        return {name: mask.detach() for name, mask in masks.items()}

    def _worst_noise(
        self, model: Classifier, masks: Scales, images: Tensor, wanted: Tensor, generator: torch.Generator
    ) -> tuple[Scales, Scales]:
        """Noise on weights and on biases that raises the loss, from a random start."""
        noise = [
            {
                name: (torch.rand(mask.shape, generator=generator) * 2 - 1).mul_(self.noise).to(mask.device)
                for name, mask in masks.items()
            }
            for _ in ("weights", "biases")
        ]
        flat = [one for kind in noise for one in kind.values()]
        closed = {name: mask.detach() for name, mask in masks.items()}
        for _ in range(self.noise_steps):
            for one in flat:
                one.requires_grad_()
            loss = F.cross_entropy(answer(model, closed, images, *noise).float(), wanted)
            gradients = torch.autograd.grad(loss, flat)
            for one, gradient in zip(flat, gradients, strict=True):
                one.requires_grad_(False).add_(gradient.sign(), alpha=self.noise / self.noise_steps)
                one.clamp_(-self.noise, self.noise)
        return noise[0], noise[1]
