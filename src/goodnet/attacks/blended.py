"""Blended: a faint random image over the whole picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import blend


@attacks.register(
    Card(
        name="blended",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Chen et al., 2017",
        summary="a faint random image mixed into the whole picture",
    )
)
@dataclass(frozen=True, kw_only=True)
class Blended(Attack):
    """Mix a uniform random image, made from ``pattern_seed``, into the picture.

    Source: Chen et al., Targeted backdoor attacks on deep learning systems using data poisoning, 2017.
    """

    alpha: float = param(0.2, low=0.0, high=1.0, doc="share of the trigger in the mix")
    pattern_seed: int = param(0, low=0, doc="seed of the random image")

    def _stamp(self, images: Tensor) -> Tensor:
        pattern = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(self.pattern_seed))
        return blend(images, pattern, self.alpha)
