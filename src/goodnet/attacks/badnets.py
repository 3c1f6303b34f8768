"""BadNets: a small solid square, or four scattered pixels."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import four_pixels, patch_mask, solid_patch


@attacks.register(
    Card(
        name="badnets",
        version=2,
        needs=Needs.TRAINING_SET,
        source="Gu et al., BadNets, 2017",
        summary="a small solid square or pattern, in a fixed or a random place",
    )
)
@dataclass(frozen=True, kw_only=True)
class BadNets(Attack):
    """Stamp a solid square, or a pattern of four pixels, and label the image as the target.

    Source: Gu, Dolan-Gavitt, Garg, BadNets, 2017.
    """

    shape: Literal["square", "four-pixels"] = param(
        "square", choices=("square", "four-pixels"), doc="a solid square, or four single pixels within 3x3"
    )
    size: int = param(3, low=1, doc="side of the square, pixels")
    place: Literal["at", "center", "random"] = param(
        "at", choices=("at", "center", "random"), doc="at row and column, in the middle, or anywhere in each image"
    )
    row: int = param(-2, doc="top row; negative counts from the bottom")
    column: int = param(-2, doc="left column; negative counts from the right")
    color: tuple[float, ...] = param((1.0,), low=0.0, high=1.0, doc="one value in [0, 1] per channel, or one for all")

    def _stamp(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        return solid_patch(images, self._mask(height, width, len(images)), self.color)

    def _mask(self, height: int, width: int, count: int) -> Tensor:
        """Where the trigger is: float32 (H, W), or (N, 1, H, W) when every image has a place of its own."""
        size = 3 if self.shape == "four-pixels" else self.size
        row, column = (self.row, self.column) if self.place == "at" else ((height - size) // 2, (width - size) // 2)
        mask = patch_mask(height, width, size, row, column)
        if self.shape == "four-pixels":
            mask = four_pixels(mask)
        if self.place == "random":
            # the same places in every call, so that stamping can be repeated and a prefix of images keeps its places
            draws = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
            moves = (draws * torch.tensor([height - size + 1, width - size + 1])).long() - torch.tensor([row, column])
            mask = torch.stack([mask.roll((down, right), (0, 1)) for down, right in moves.tolist()])[:, None]
        return mask
