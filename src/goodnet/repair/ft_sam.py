"""FT-SAM: fine-tuning that is done only where the neighborhood of the weights does as well."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import tune, wanted_answers
from goodnet.training import Recipe


@repairers.register(
    Card(
        name="ft-sam",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Zhu et al., Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization, ICCV 2023",
        summary="fine-tunes by gradients taken where the weights are disturbed for the worse",
        quick={"epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class FtSam(Repairer):
    """Fine-tune with adaptive sharpness-aware minimization.

    What it does: every step goes first to the worst place in an ellipsoid around the weights w, takes the gradient
    there and applies it at w. The ellipsoid is as wide as each weight is large, so that the large weights on which
    backdoor neurons rest move most.
    Needs: the model with gradients, some hundreds of clean images; without labels the model's own answers.
    Limits: twice the cost of fine-tuning. ``rho`` must suit the network: the published values are for ResNets.
    Source: Zhu, Wei, Shen, Fan, Wu, Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization,
    ICCV 2023. Biases are scaled as the weights are, as the paper has it. BatchNorm's running statistics are
    those of w alone; the disturbed network leaves none behind.
    """

    rho: float = param(2.0, low=0.0, doc="how far the disturbance goes, relative to the weights")
    smoothing: float = param(0.1, low=0.0, high=1.0, doc="label smoothing")
    epochs: int = param(30, low=1, doc="passes over the clean images")
    learning_rate: float = param(0.01, low=0.0, doc="where the cosine schedule begins")
    batch_size: int = param(64, low=2, doc="images per step")
    shift: int = param(2, low=0, doc="augmentation: random shifts by at most so many pixels")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        assert defender.model is not None
        assert defender.clean is not None
        recipe = Recipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            schedule="cosine",
            shift=self.shift,
        )
        model = tune(defender.model, defender.clean, wanted_answers(defender), recipe, run, loss=self.loss)
        return Fixed(model=model, counts={"images": len(defender.clean), "epochs": self.epochs})

    def loss(self, model: Classifier, images: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
        """The loss at the weights, whose gradient is that at the disturbed weights.

        So the training loop that everybody shares takes the step that SAM asks for.
        """
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        value = F.cross_entropy(model(images).float(), wanted, label_smoothing=self.smoothing)
        steps = ascent(weights, torch.autograd.grad(value, weights, materialize_grads=True), self.rho)
        with disturbed(weights, steps), frozen_statistics(model):
            there = F.cross_entropy(model(images).float(), wanted, label_smoothing=self.smoothing)
            gradients = torch.autograd.grad(there, weights, materialize_grads=True)
        product = torch.stack([(w * g).sum() for w, g in zip(weights, gradients, strict=True)]).sum()
        return value.detach() + product - product.detach()


def ascent(weights: Sequence[Tensor], gradients: Sequence[Tensor], rho: float) -> list[Tensor]:
    """Where the loss rises most among all steps e with ||e / |w| || = rho: e = rho w^2 g / || |w| g ||."""
    norm = torch.stack([(w.detach() * g).square().sum() for w, g in zip(weights, gradients, strict=True)]).sum().sqrt()
    scale = rho / norm.clamp_min(1e-12)
    return [scale * w.detach().square() * g for w, g in zip(weights, gradients, strict=True)]


@contextlib.contextmanager
def disturbed(weights: Sequence[Tensor], steps: Sequence[Tensor]) -> Iterator[None]:
    """Inside, every weight is moved by its step; afterwards it is exactly what it was."""
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, step in zip(weights, steps, strict=True):
            weight.add_(step)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm normalizes as before and forgets what it sees."""
    kept = [(one, one.momentum) for one in model.modules() if isinstance(one, _BatchNorm)]
    try:
        for one, _ in kept:
            one.momentum = 0.0
        yield
    finally:
        for one, momentum in kept:
            one.momentum = momentum
