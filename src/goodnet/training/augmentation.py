"""Augmentation by indexing, on the device where the images are."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random shifts by at most ``shift`` pixels (edges repeated) and, when ``flip``, horizontal mirroring."""

    shift: int = 0
    flip: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (N, C, H, W) of any type, each moved in its own way."""
        count, _, height, width = images.shape
        if self.flip:
            mirrored = torch.rand(count, generator=generator) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1).to(images.device), images.flip(3), images)
        if self.shift:
            padded = F.pad(images, [self.shift] * 4, mode="replicate")
            offsets = torch.randint(2 * self.shift + 1, (2, count, 1), generator=generator)
            rows = (offsets[0] + torch.arange(height)).to(images.device)
            columns = (offsets[1] + torch.arange(width)).to(images.device)
            which = torch.arange(count, device=images.device)
            images = padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return images
