"""BadNets: a small solid square."""

from dataclasses import dataclass

from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import patch_mask, solid_patch


@attacks.register(
    Card(
        name="badnets",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Gu et al., BadNets, 2017",
        summary="a small solid square in a fixed place",
    )
)
@dataclass(frozen=True, kw_only=True)
class BadNets(Attack):
    """Stamp a solid square and label the image as the target.

    Source: Gu, Dolan-Gavitt, Garg, BadNets, 2017.
    """

    size: int = param(3, low=1, doc="side of the square, pixels")
    row: int = param(-2, doc="top row; negative counts from the bottom")
    column: int = param(-2, doc="left column; negative counts from the right")
    color: tuple[float, ...] = param((1.0,), low=0.0, high=1.0, doc="one value in [0, 1] per channel, or one for all")

    def _stamp(self, images: Tensor) -> Tensor:
        mask = patch_mask(images.shape[2], images.shape[3], self.size, self.row, self.column)
        return solid_patch(images, mask, self.color)
