"""BCU: forget a part of the weights, more of them in deeper layers, and learn anew from the suspect's own answers."""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import tune
from goodnet.training import Recipe
from goodnet.training.fit import Loss
from goodnet.training.transfer import layers_with_weights


@repairers.register(
    Card(
        name="bcu",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        source="Pang et al., Backdoor Cleansing with Unlabeled Data, CVPR 2023",
        summary="draws a part of the weights anew and distills the suspect's answers into them; no labels",
        quick={"epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class Bcu(Repairer):
    """Draw a part of the weights anew, then teach the result what the suspect says about images without a trigger.

    What it does: every weight and bias of a convolution or linear layer is replaced by a fresh one with a probability
    that grows by the same factor from layer to layer, because backdoors sit deep; the head has its own. BatchNorm is
    kept. Then the suspect's softmax is distilled into it, at a temperature that rises from 1 to 4. The last epoch is
    what comes back; nothing is chosen on images that the defender does not hold.
    Needs: the model with gradients and some hundreds of images without triggers. Labels are not looked at. The images
    may be stand-ins of another kind; then ``keep_statistics``, so that BatchNorm does not take on theirs.
    Limits: a compromise. Where shares are small the backdoor stays, where they are large and images few accuracy falls:
    the paper's suit a ResNet, a small network needs larger ones (``deepest``, ``head``).
    Source: Pang et al., Backdoor Cleansing with Unlabeled Data, CVPR 2023. There probabilities are given for the five
    stages of a ResNet (0.01, 0.03 ... 0.27, head 0.1); ours run from the first to the last over any number of layers.
    The rise of the temperature is that of the published code, which chooses the epoch on test images; ours does not.
    """

    epochs: int = param(100, low=1, doc="passes over the images")
    first: float = param(0.01, low=0.0, high=1.0, doc="share of the first layer's weights that are drawn anew")
    deepest: float = param(0.27, low=0.0, high=1.0, doc="share in the last layer before the head")
    head: float = param(0.1, low=0.0, high=1.0, doc="share in the head")
    temperature: float = param(4.0, low=1.0, doc="of the distillation at the end; it begins near 1")
    learning_rate: float = param(0.01, low=0.0, doc="at the start of the cosine schedule")
    batch_size: int = param(64, low=2, doc="images per step")
    shift: int = param(2, low=0, doc="augmentation: random shifts by at most so many pixels")
    keep_statistics: bool = param(False, doc="BatchNorm keeps the suspect's statistics: for stand-in images")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        assert defender.model is not None
        assert defender.clean is not None
        student = copy.deepcopy(defender.model)
        redrawn = self._redraw(student, run.generator)
        recipe = Recipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            schedule="cosine",
            shift=self.shift,
        )
        steps = self.epochs * math.ceil(len(defender.clean) / self.batch_size)
        loss = self._distillation(defender.model, steps)
        nothing = torch.zeros(len(defender.clean))  # the suspect answers each image as it is shown, shifted
        model = tune(student, defender.clean, nothing, recipe, run, loss=loss)
        counts = {"images": len(defender.clean), "epochs": self.epochs}
        return Fixed(model=model, notes={"weights_redrawn": float(redrawn)}, counts=counts)

    @torch.no_grad()
    def _redraw(self, model: Classifier, generator: torch.Generator) -> int:
        """Replace weights in place by fresh ones as PyTorch initializes them; how many were."""
        count = 0
        for layer, share in self._shares(model):
            parameters = list(layer.parameters(recurse=False))
            bound = max(one[0].numel() for one in parameters) ** -0.5  # one over the root of the inputs of a unit
            for one in parameters:
                fresh = torch.empty(one.shape).uniform_(-bound, bound, generator=generator)
                drawn = torch.rand(one.shape, generator=generator) < share
                one.copy_(torch.where(drawn.to(one.device), fresh.to(one), one))
                count += int(drawn.sum())
        return count

    def _shares(self, model: Classifier) -> Iterator[tuple[nn.Module, float]]:
        """Every layer with weights in execution order, and the share of it that is drawn anew."""
        layers, head = [layer for _, layer in layers_with_weights(model)], model.head()
        body = [layer for layer in layers if layer is not head]
        for place, layer in enumerate(body):
            depth = place / max(len(body) - 1, 1)
            yield layer, self.first ** (1 - depth) * self.deepest**depth
        if head is not None:
            yield head, self.head

    def _distillation(self, suspect: Classifier, steps: int) -> Loss:
        """The divergence of the student's answers from the suspect's, both softened by the step's temperature."""
        counter = itertools.count(1)

        def loss(model: Classifier, images: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
            if self.keep_statistics:
                for module in model.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
            temperature = 1 + (self.temperature - 1) * min(next(counter) / steps, 1)
            with torch.no_grad():
                answers = (suspect(images).float() / temperature).softmax(1)  # on the very same shifted images
            return F.kl_div((model(images).float() / temperature).log_softmax(1), answers, reduction="batchmean")

        return loss
