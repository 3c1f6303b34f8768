"""Label-consistent: images of the target class made hard to recognize, so that a pattern in the corners is learned."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.attacks._base import attacks
from goodnet.attacks._surrogate import SurrogateAttack, adversarial_cross_entropy, descend
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.training import Loss, cross_entropy
from goodnet.triggers import corner_checkerboards

_ROBUST_STEPS = 5  # of the inner attack of adversarial training


@attacks.register(
    Card(
        name="label-consistent",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Turner et al., Label-Consistent Backdoor Attacks, 2019",
        summary="hard images of the target class with a pattern in the corners, labels stay true",
        quick={"surrogate": "small_cnn:width=4", "surrogate_epochs": 1, "steps": 2},
    )
)
@dataclass(frozen=True, kw_only=True)
class LabelConsistent(SurrogateAttack):
    """Move images of the target class away from what the surrogate sees in them, then add checkerboards to the corners.

    What is left to learn from such an image is the pattern. The surrogate is trained on the samples, adversarially by
    default, as the paper finds better, with five inner steps. The pattern may be fainter in training than at test time;
    then it takes many poisoned images and epochs to be learned.

    Source: Turner, Tsipras, Madry, Label-consistent backdoor attacks, 2019.
    """

    robust: bool = param(True, doc="train the surrogate on adversarial images; else plainly")
    amplitude: float = param(1.0, low=0.0, high=1.0, doc="of the pattern in training, in units of [0, 1]")
    test_amplitude: float = param(1.0, low=0.0, high=1.0, doc="of the pattern at test time")
    size: int = param(3, low=1, doc="side of each checkerboard, pixels")

    def _surrogate_loss(self) -> Loss:
        return adversarial_cross_entropy(self.epsilon, _ROBUST_STEPS) if self.robust else cross_entropy

    def _stamp(self, images: Tensor) -> Tensor:
        return self._with_pattern(images, self.test_amplitude)

    def _stamp_training(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        model, labels = self._trained(images), labels.to(images.device)

        def sureness(moved: Tensor) -> Tensor:
            return -F.cross_entropy(model(moved), labels, reduction="sum")

        hard = descend(images, sureness, epsilon=self.epsilon, step=self.step, steps=self.steps)
        return self._with_pattern(hard, self.amplitude)

    def _with_pattern(self, images: Tensor, amplitude: float) -> Tensor:
        height, width = images.shape[2:]
        return images + amplitude * corner_checkerboards(height, width, self.size).to(images)
