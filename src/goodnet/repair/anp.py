"""ANP: prune the channels that a small noise on BatchNorm weights turns against clean images."""

import bisect
import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.errors import NotApplicable
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import wanted_answers

Scales = dict[str, Tensor]
"""By the name of a BatchNorm in the classifier: one factor for each channel."""
THRESHOLDS = tuple(step / 20 for step in range(19))  # 0, 0.05 ... 0.9
ROUNDING = 1e-6  # 0.95 - 0.02 is a little more than 0.93 in binary


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


def batch_norms(model: Classifier) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers with weights, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine
    }


def answer(
    model: Classifier, masks: Scales, images: Tensor, on_weights: Scales | None = None, on_biases: Scales | None = None
) -> Tensor:
    """Logits with BatchNorm weights times (mask + noise) and biases times (1 + noise); the model keeps its own."""
    changed = {}
    for name, norm in batch_norms(model).items():
        changed[f"{name}.weight"] = norm.weight * (
            masks[name] if on_weights is None else masks[name] + on_weights[name]
        )
        changed[f"{name}.bias"] = norm.bias if on_biases is None else norm.bias * (1 + on_biases[name])
    logits: Tensor = functional_call(model, changed, (images,))
    return logits


@torch.no_grad()
def clip(masks: Scales) -> None:
    """Bring masks back into [0, 1], in place."""
    for mask in masks.values():
        mask.clamp_(0, 1)


def split(count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places of the images to learn on, and of ``share`` of them, at least one, that are held out."""
    order = torch.randperm(count, generator=generator)
    held_out = max(1, round(share * count))
    return (order[held_out:] if count > 1 else order), order[:held_out]


def prune_what_is_closed(
    model: Classifier, masks: Scales, held_out: Samples, wanted: Tensor, tolerance: float
) -> Fixed:
    """``model`` with BatchNorm weight 0 where a mask is at or below the threshold, the biases kept.

    The threshold is the highest of 0, 0.05 ... 0.9 that costs at most ``tolerance`` of the accuracy on ``held_out``,
    found by bisection: the higher, the more is pruned. Where 0 costs more, nothing is pruned.
    """
    answers = (wanted if wanted.ndim == 1 else wanted.argmax(1)).cpu()
    norms = batch_norms(model)
    original = {name: norm.weight.detach().clone() for name, norm in norms.items()}

    def accuracy_at(threshold: float) -> float:
        with torch.no_grad():
            for name, norm in norms.items():
                norm.weight.copy_(original[name] * (masks[name] > threshold))
        return float((predictions(model, held_out.images).argmax(1) == answers).float().mean())

    before = accuracy_at(-1)
    too_high = bisect.bisect_left(
        THRESHOLDS, True, key=lambda threshold: accuracy_at(threshold) < before - tolerance - ROUNDING
    )
    threshold = THRESHOLDS[too_high - 1] if too_high else -1.0
    after = accuracy_at(threshold)
    pruned = {name: (mask <= threshold).nonzero().flatten().tolist() for name, mask in masks.items()}
    return Fixed(
        model=model,
        notes={
            "channels_pruned": float(sum(map(len, pruned.values()))),
            "held_out_accuracy_before": before,
            "held_out_accuracy_after": after,
        },
        counts={"channels": sum(map(len, masks.values())), "held_out_images": len(held_out)},
        evidence={
            "threshold": threshold if too_high else None,
            "pruned": {name: channels for name, channels in pruned.items() if channels},
        },
    )
