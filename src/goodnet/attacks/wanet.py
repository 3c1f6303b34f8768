"""WaNet: a smooth warp, with noise samples so that only the right warp fires."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import warp, warping_grid


@attacks.register(
    Card(
        name="wanet",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Nguyen and Tran, ICLR 2021",
        summary="a smooth, hardly visible warp of the picture",
    )
)
@dataclass(frozen=True, kw_only=True)
class WaNet(Attack):
    """Warp the picture along one fixed random field.

    The paper's noise mode (other random warps with true labels) needs control of the training and is not here yet.

    Source: Nguyen, Tran, WaNet: imperceptible warping-based backdoor attack, ICLR 2021.
    """

    strength: float = param(0.5, low=0.0, doc="of the warp; the paper's s")
    control: int = param(4, low=2, doc="control points per side; the paper's k")
    field_seed: int = param(0, low=0, doc="seed of the warping field")

    def _stamp(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.field_seed)
        height, width = images.shape[2:]
        return warp(
            images, warping_grid(height, width, control=self.control, strength=self.strength, generator=generator)
        )
