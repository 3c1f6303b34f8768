"""SAU: unlearn the adversarial images that the suspect and the model being repaired fall for in the same way."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import tune, wanted_answers
from goodnet.training import Recipe
from goodnet.training.fit import Loss


@repairers.register(
    Card(
        name="sau",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Wei et al., Shared Adversarial Unlearning, NeurIPS 2023",
        summary="unlearns adversarial images that mislead suspect and repaired model alike",
        assumes=("trigger within the ball",),
        quick={"epochs": 1, "steps": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class Sau(Repairer):
    """Unlearn adversarial images that mislead the suspect and the repaired model to the same label.

    What it does: for every batch, images are disturbed so that both models err (``adversarial``) and agree
    (``agreement``: a low Jensen-Shannon divergence). The model is trained on the clean images and to lose faith in the
    label that the suspect was misled to; errors that the suspect does not share are left alone, so that this costs less
    accuracy than adversarial training.
    Needs: the model with gradients, some hundreds of clean images; without labels the model's own answers.
    Limits: a trigger that changes pixels by more than ``radius`` is outside of the ball. Costs two networks, forward
    and back, for every one of ``steps``.
    Source: Wei, Zhang, Zha, Wu, Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning Shared Adversarial
    Examples, NeurIPS 2023. As in the paper all images are disturbed to the end; the code stops those that already
    mislead. The disturbance starts at random in the ball (code: all +radius), and disturbed images are clipped to
    images, which the code leaves out.
    """

    radius: float = param(0.2, low=0.0, high=1.0, doc="largest change of a pixel, of images in [0, 1]")
    step_size: float = param(0.2, low=0.0, high=1.0, doc="change of a pixel in one step")
    steps: int = param(5, low=1, doc="of projected gradient descent")
    adversarial: float = param(0.01, low=0.0, doc="weight of both models' errors in the disturbance")
    agreement: float = param(1.0, low=0.0, doc="weight of their agreement in the disturbance")
    unlearning: float = param(1.0, low=0.0, doc="weight of the shared errors in the training")
    epochs: int = param(30, low=1, doc="passes over the clean images")
    learning_rate: float = param(0.001, low=0.0, doc="Adam's")
    batch_size: int = param(64, low=2, doc="images per step")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        suspect, clean = defender.model, defender.clean
        assert suspect is not None
        assert clean is not None
        recipe = Recipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            optimizer="adam",
            schedule="constant",
        )
        model = tune(suspect, clean, wanted_answers(defender), recipe, run, loss=self.loss(suspect))
        return Fixed(model=model, counts={"images": len(clean), "epochs": self.epochs})

    def loss(self, suspect: Classifier) -> Loss:
        """Cross-entropy on the clean images plus the risk of the errors that the model shares with the suspect."""

        def loss(model: Classifier, images: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
            labels = wanted if wanted.ndim == 1 else wanted.argmax(1)
            model.eval()  # what is searched is an error of the model as it will be used
            adversarial = self.disturb(model, suspect, images, labels, generator)
            model.train()
            with torch.no_grad():
                misled = suspect(adversarial).float()
            logits, disturbed = model(torch.cat([images, adversarial])).float().split(len(images))
            return F.cross_entropy(logits, wanted) + self.unlearning * shared_risk(disturbed, misled, labels)

        return loss

    def disturb(
        self, model: Classifier, suspect: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Images within ``radius`` of these that mislead both models, and to the same answers."""
        start = torch.empty(images.shape).uniform_(-self.radius, self.radius, generator=generator)
        moved = (images + start.to(images.device)).clamp(0, 1)
        for _ in range(self.steps):
            moved.requires_grad_(True)
            one, other = model(moved).float(), suspect(moved).float()
            errors = (F.cross_entropy(one, labels) + F.cross_entropy(other, labels)) / 2
            gain = self.adversarial * errors - self.agreement * jensen_shannon(one, other).mean()
            (gradient,) = torch.autograd.grad(gain, moved)
            moved = moved.detach() + self.step_size * gradient.sign()
            moved = (images + (moved - images).clamp(-self.radius, self.radius)).clamp(0, 1)
        return moved


def jensen_shannon(one: Tensor, other: Tensor) -> Tensor:
    """The divergence (N,) of the probabilities of two rows of logits (N, K): 0 where they agree, at most log 2."""
    first, second = one.log_softmax(1), other.log_softmax(1)
    middle = torch.logaddexp(first, second) - math.log(2)
    divergences = first.exp() * (first - middle) + second.exp() * (second - middle)
    return divergences.sum(1) / 2


def shared_risk(logits: Tensor, misled: Tensor, labels: Tensor) -> Tensor:
    """The mean of -log(1 - p), p being what the model gives to the label to which the suspect was misled.

    Where the suspect answers as it shall there is nothing to unlearn, and the risk is 0.
    """
    answers = misled.argmax(1)
    chances = logits.softmax(1).gather(1, answers[:, None])[:, 0]
    risks = -torch.log((1 - chances).clamp_min(1e-6))
    return torch.where(answers != labels, risks, torch.zeros_like(risks)).mean()
