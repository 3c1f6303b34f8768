"""BppAttack: fewer shades per channel, hardly visible."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import dither, quantize


@attacks.register(
    Card(
        name="bpp",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Wang et al., BppAttack, CVPR 2022",
        summary="fewer shades per channel, with noise samples so that only true quantization fires",
        assumes=("images of many shades",),
    )
)
@dataclass(frozen=True, kw_only=True)
class Bpp(Attack):
    """Round every channel to 2 ** bits values, with or without Floyd-Steinberg dithering.

    Covers, the paper's negative samples, keep their label and carry the rounding error of another image, turned around:
    the network must learn the few shades, and not that an image is disturbed. The paper's code mixes its samples anew
    in every batch; this is the version that only poisons the set.

    Source: Wang, Zhai, Ma, BppAttack: stealthy and efficient trojan attacks against deep neural networks via image
    quantization and contrastive adversarial learning, CVPR 2022.
    """

    cover_rate: float = param(0.1, low=0.0, high=1.0, doc="share of the set that gets noise and keeps its label")
    bits: int = param(3, low=1, high=7, doc="per channel that are left of 8")
    dithering: bool = param(False, doc="diffuse the rounding error to the neighbors")

    def _stamp(self, images: Tensor) -> Tensor:
        return (dither if self.dithering else quantize)(images, self.bits)

    def _stamp_cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        error = self._stamp(images) - images
        return images + error.roll(1, dims=0).flip(2, 3)
