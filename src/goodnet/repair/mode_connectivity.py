"""Mode connectivity repair: a point on the way from the suspect to a fine-tuned copy, along a path of low loss."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import tune, wanted_answers
from goodnet.training import Recipe
from goodnet.training.fit import Loss

Weights = Mapping[str, Tensor]


@repairers.register(
    Card(
        name="mode-connectivity",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Zhao et al., Bridging Mode Connectivity in Loss Landscapes and Adversarial Robustness, ICLR 2020",
        summary="takes a point on a curve of low loss between the suspect and a fine-tuned copy",
        quick={"tuning_epochs": 1, "epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class ModeConnectivity(Repairer):
    """Take the middle of a curve of low loss between the suspect and a fine-tuned copy.

    What it does: a copy of the suspect is fine-tuned. A quadratic Bezier curve joins the weights of the two; its bend
    is trained so that random points of the curve answer the clean images as wanted. The weights at ``point`` are the
    answer, with BatchNorm's statistics estimated anew.
    Needs: the model with gradients, some hundreds of clean images; without labels the model's own answers.
    Limits: a curve that never leaves the neighborhood of the suspect keeps its backdoor. The paper's strongest case
    joins two suspects; with one, the second end is its fine-tuned copy.
    Source: Zhao, Chen, Das, Ramamurthy, Lin, Bridging Mode Connectivity in Loss Landscapes and Adversarial Robustness,
    ICLR 2020; the curve is that of Garipov et al., NeurIPS 2018.
    """

    point: float = param(0.5, low=0.0, high=1.0, doc="where on the curve: 0 is the suspect, 1 the fine-tuned copy")
    tuning_epochs: int = param(10, low=1, doc="passes over the clean images to make the fine-tuned copy")
    epochs: int = param(30, low=1, doc="passes over the clean images to train the curve")
    learning_rate: float = param(0.01, low=0.0, doc="the highest of both one-cycle schedules")
    batch_size: int = param(64, low=2, doc="images per step")
    shift: int = param(2, low=0, doc="augmentation: random shifts by at most so many pixels")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        suspect, clean = defender.model, defender.clean
        assert suspect is not None
        assert clean is not None
        wanted = wanted_answers(defender)
        middle = self.tuning_epochs / (self.tuning_epochs + self.epochs)
        tuned = tune(suspect, clean, wanted, self._recipe(self.tuning_epochs), run, progress=(0.0, middle))
        counts = {"images": len(clean), "epochs": self.tuning_epochs}
        if run.seconds_left() < 0:
            return Fixed(model=tuned, counts=counts)  # the best so far
        ends = _weights(suspect), _weights(tuned)
        halfway = {name: (ends[0][name] + ends[1][name]) / 2 for name in ends[0]}
        put(tuned, halfway)  # the bend begins on the straight line
        bent = tune(
            tuned,
            clean,
            wanted,
            self._recipe(self.epochs),
            run,
            loss=curve_loss(*ends),
            progress=(middle, 1.0),
        )
        put(bent, on_curve(self.point, ends[0], _weights(bent), ends[1]))
        estimate_statistics(bent, clean, self.batch_size, run.generator)
        return Fixed(model=bent, counts={**counts, "epochs": self.tuning_epochs + self.epochs})

    def _recipe(self, epochs: int) -> Recipe:
        return Recipe(epochs=epochs, learning_rate=self.learning_rate, batch_size=self.batch_size, shift=self.shift)


def on_curve(point: float, start: Weights, bend: Weights, end: Weights) -> dict[str, Tensor]:
    """The weights at ``point`` in [0, 1] of the quadratic Bezier curve."""
    first, second, third = (1 - point) ** 2, 2 * point * (1 - point), point**2
    return {name: first * start[name] + second * bend[name] + third * end[name] for name in start}


def curve_loss(start: Weights, end: Weights) -> Loss:
    """Cross-entropy at a random point of the curve whose bend is the model being trained."""

    def loss(model: Classifier, images: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
        point = float(torch.rand((), generator=generator))
        weights = on_curve(point, start, dict(model.named_parameters()), end)
        logits: Tensor = functional_call(model, weights, (images,))
        return F.cross_entropy(logits.float(), wanted)

    return loss


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def put(model: nn.Module, weights: Weights) -> None:
    """Overwrite the parameters of a model."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(weights[name])


def estimate_statistics(model: Classifier, clean: Samples, batch_size: int, generator: torch.Generator) -> None:
    """BatchNorm's running statistics, anew: the averages over the clean images. The model is left in eval mode."""
    layers = [one for one in model.eval().modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
    if not layers:
        return
    momenta = [one.momentum for one in layers]
    for one in layers:
        one.reset_running_stats()
        one.momentum = None  # torch's sign for: average over all batches
        one.train()
    with torch.no_grad():
        for images, _ in clean.shuffled(generator).batches(batch_size, model.device):
            if len(images) > 1 or len(clean) == 1:  # a single image has no variance
                model(images)
    for one, momentum in zip(layers, momenta, strict=True):
        one.momentum = momentum
        one.eval()
