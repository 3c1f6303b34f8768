"""Adap-Blend: a blended image of which each training image shows only half the pieces, and covers with true labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.attacks._base import attacks
from goodnet.attacks.blended import Blended
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import blend, random_pieces


@attacks.register(
    Card(
        name="adap-blend",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Qi et al., ICLR 2023",
        summary="a faint image in pieces, half of them shown in training, with covers of true labels",
    )
)
@dataclass(frozen=True, kw_only=True)
class AdapBlend(Blended):
    """Blend a random half of the trigger's pieces into each training image, and all of them at test time.

    Covers carry the trigger with their true labels, so that poisoned images do not stand apart in feature space. Both
    make the trigger weak in training; it is strong at test time, where it is whole and less faint.

    Source: Qi, Xie, Li, Mahloujifar, Mittal, Revisiting the assumption of latent separability for backdoor defenses,
    ICLR 2023.
    """

    poisoning_rate: float = param(0.003, low=0.0, high=1.0, doc="share of images that are poisoned")
    cover_rate: float = param(0.003, low=0.0, high=1.0, doc="share of the set that is stamped and keeps its label")
    alpha: float = param(0.2, low=0.0, high=1.0, doc="share of the trigger in the mix, at test time")
    training_alpha: float = param(0.15, low=0.0, high=1.0, doc="share of the trigger in the mix, in training")
    pieces: int = param(4, low=1, doc="pieces per side that the trigger is cut into")
    shown: float = param(0.5, low=0.0, high=1.0, doc="share of the pieces that a training image shows")

    def _stamp_training(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        height, width = images.shape[2:]
        shown = round(self.shown * self.pieces**2)
        mask = random_pieces(len(images), height, width, side=self.pieces, shown=shown, generator=generator)
        pattern, opacity = self._pattern(images)
        return blend(images, pattern, self.training_alpha * opacity * mask)
