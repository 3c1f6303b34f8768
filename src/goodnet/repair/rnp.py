"""RNP: unlearn the clean images, recover them through masks, and prune what was not needed for that."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        name="rnp",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Li et al., Reconstructive Neuron Pruning for Backdoor Defense, ICML 2023",
        summary="unlearns clean images, then prunes the channels that recovering them leaves closed",
        assumes=("BatchNorm",),
        quick={"unlearning_epochs": 1, "recovering_epochs": 1, "batch_size": 16},
    )
)
@dataclass(frozen=True, kw_only=True)
class Rnp(Repairer):
    """Unlearn and recover: channels that are closed by recovering clean images serve the backdoor.

    What it does: a copy of the suspect climbs the loss of clean images until hardly any is answered right; masks in
    [0, 1] on the BatchNorm weights of that copy are learned so that they are right again; where a mask stays at or
    below a threshold, the BatchNorm weight of the suspect itself, not of the copy, becomes 0. The threshold is the
    highest at which held-out images of the defender's own are still answered right.
    Needs: the model with gradients, some hundreds of clean images; without labels the suspect's own answers take their
    place.
    Limits: networks without BatchNorm cannot be repaired. Where unlearning destroys the copy, many masks close at once;
    if pruning all of these costs more than ``tolerance``, nothing is pruned.
    Source: Li et al., Reconstructive Neuron Pruning for Backdoor Defense, ICML 2023. The published code clips the
    gradient before there is one; ours after the backward pass.
    """

    unlearning_epochs: int = param(20, low=1, doc="at most so many passes that unlearn")
    unlearning_rate: float = param(0.01, low=0.0, doc="of the climb; SGD with momentum 0.9")
    unlearned: float = param(0.2, low=0.0, high=1.0, doc="accuracy of the copy at which unlearning ends")
    clip_norm: float = param(20.0, low=0.0, doc="the longest gradient of the climb")
    recovering_epochs: int = param(20, low=1, doc="passes that learn the masks")
    recovering_rate: float = param(0.2, low=0.0, doc="of the masks; SGD with momentum 0.9")
    loss_weight: float = param(0.2, low=0.0, doc="factor of the loss of the masks (alpha)")
    batch_size: int = param(128, low=2, doc="images per step")
    held_out: float = param(0.2, low=0.05, high=0.5, doc="share of the images on which the threshold is chosen")
    tolerance: float = param(0.02, low=0.0, high=1.0, doc="how much accuracy on held-out images pruning may cost")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        assert defender.model is not None
        assert defender.clean is not None
        if not batch_norms(defender.model):
            raise NotApplicable("rnp masks the channels of BatchNorm, and this network has none")
        wanted = wanted_answers(defender)
        mine, others = split(len(defender.clean), self.held_out, run.generator)
        samples, right = defender.clean.pick(mine), wanted[mine].to(defender.model.device)
        unlearned = self.unlearn(defender.model, samples, right, run)
        masks = self.recover(unlearned, samples, right, run)
        return prune_what_is_closed(defender.model, masks, defender.clean.pick(others), wanted[others], self.tolerance)

    def unlearn(self, model: Classifier, samples: Samples, wanted: Tensor, run: Run) -> Classifier:
        """A copy of ``model`` that has climbed the loss of ``samples``."""
        copied = copy.deepcopy(model).train()
        copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(copied.parameters(), self.unlearning_rate, momentum=0.9, weight_decay=5e-4)
        answers = wanted if wanted.ndim == 1 else wanted.argmax(1)
        for epoch in range(self.unlearning_epochs):
            right = 0
            for batch in self._batches(len(samples), run):
                logits = copied(samples.images[batch].to(model.device).float() / 255).float()
                place = batch.to(model.device)
                right += int((logits.argmax(1) == answers[place]).sum())
                optimizer.zero_grad()
                (-F.cross_entropy(logits, wanted[place])).backward()
                nn.utils.clip_grad_norm_(copied.parameters(), self.clip_norm)
                optimizer.step()
            share = right / len(samples)
            run.progress(0.5 * (epoch + 1) / self.unlearning_epochs, f"unlearning, accuracy {share:.3f}")
            if share <= self.unlearned or run.seconds_left() < 0:
                break
        return copied

    def recover(self, unlearned: Classifier, samples: Samples, wanted: Tensor, run: Run) -> Scales:
        """Masks, in [0, 1], of the unlearned model's BatchNorm channels that lower its loss of ``samples``."""
        unlearned = copy.deepcopy(unlearned).train().requires_grad_(False)  # its statistics move with every batch
        masks = {name: torch.ones_like(norm.weight).requires_grad_() for name, norm in batch_norms(unlearned).items()}
        optimizer = torch.optim.SGD(masks.values(), self.recovering_rate, momentum=0.9)
        for epoch in range(self.recovering_epochs):
            for batch in self._batches(len(samples), run):
                images = samples.images[batch].to(unlearned.device).float() / 255
                loss = F.cross_entropy(answer(unlearned, masks, images).float(), wanted[batch.to(unlearned.device)])
                optimizer.zero_grad()
                (self.loss_weight * loss).backward()
                optimizer.step()
                clip(masks)
            run.progress(
                0.5 + 0.5 * (epoch + 1) / self.recovering_epochs, f"recovering, loss {float(loss.detach()):.3f}"
            )
            if run.seconds_left() < 0:
                break
        return {name: mask.detach() for name, mask in masks.items()}

    def _batches(self, count: int, run: Run) -> list[Tensor]:
        """Places in random order; a single one left over is left out: BatchNorm cannot normalize one image."""
        batches = torch.randperm(count, generator=run.generator).split(self.batch_size)
        return [batch for batch in batches if len(batch) > 1 or count == 1]
