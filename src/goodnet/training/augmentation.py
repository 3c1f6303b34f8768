"""Augmentation by indexing, on the device where the images are."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random shifts by at most ``shift`` pixels (edges repeated) and, when ``flip``, horizontal mirroring."""

    shift: int = 0
    flip: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (N, C, H, W) of any type, each moved in its own way."""
        if not self.flip and not self.shift:
            return images
        count, channels, height, width = images.shape
        rows, columns = torch.arange(height).expand(count, -1), torch.arange(width).expand(count, -1)
        mirrored = torch.rand(count, 1, generator=generator) < 0.5 if self.flip else torch.zeros(count, 1).bool()
        if self.shift:
            offsets = torch.randint(-self.shift, self.shift + 1, (2, count, 1), generator=generator)
            rows, columns = (rows + offsets[0]).clamp(0, height - 1), (columns + offsets[1]).clamp(0, width - 1)
        columns = torch.where(mirrored, width - 1 - columns, columns)
        # one gather for all: three times as fast as indexing rows and columns
        places = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1).to(images.device)
        return images.flatten(2).gather(2, places.expand(-1, channels, -1)).view(images.shape)
