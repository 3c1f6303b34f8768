"""Blended: a faint image over the whole picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import blend, read_image


@attacks.register(
    Card(
        name="blended",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Chen et al., 2017",
        summary="a faint image, random or from a file, mixed into the whole picture",
    )
)
@dataclass(frozen=True, kw_only=True)
class Blended(Attack):
    """Mix an image into the picture: one from a file, or a uniform random one made from ``pattern_seed``.

    Where the file's image is transparent, nothing is mixed in.

    Source: Chen et al., Targeted backdoor attacks on deep learning systems using data poisoning, 2017.
    """

    alpha: float = param(0.2, low=0.0, high=1.0, doc="share of the trigger in the mix")
    pattern_seed: int = param(0, low=0, doc="seed of the random image")
    image: str = param("", doc="path of a picture file, scaled to the images; empty: a random image")

    def _stamp(self, images: Tensor) -> Tensor:
        pattern, opacity = self._pattern(images)
        return blend(images, pattern, self.alpha * opacity)

    def _pattern(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The trigger (C, H, W) for these images, and how opaque it is (H, W)."""
        channels, height, width = images.shape[1:]
        if self.image:
            return read_image(self.image, channels, height, width)
        generator = torch.Generator().manual_seed(self.pattern_seed)
        return torch.rand(channels, height, width, generator=generator), torch.ones(height, width)
