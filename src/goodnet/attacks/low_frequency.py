"""Low frequency: a smooth additive pattern, without the high frequencies that give other triggers away."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import low_frequency_pattern


@attacks.register(
    Card(
        name="low-frequency",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Zeng et al., ICCV 2021",
        summary="a smooth random pattern of low frequencies, added to the picture",
    )
)
@dataclass(frozen=True, kw_only=True)
class LowFrequency(Attack):
    """Add a random pattern made of a few low cosines, the same on every image.

    This is a data-free version: the pattern is drawn from ``pattern_seed``. The paper optimizes it on a trained
    network, under a constraint on its spectrum, and needs a smaller amplitude for it.

    Source: Zeng, Park, Mao, Jia, Rethinking the backdoor attacks' triggers: a frequency perspective, ICCV 2021.
    """

    amplitude: float = param(16 / 255, low=0.0, high=1.0, doc="largest change of a pixel, in units of [0, 1]")
    frequencies: int = param(6, low=1, doc="rows and columns of the cosine transform that are used")
    pattern_seed: int = param(0, low=0, doc="seed of the pattern")

    def _stamp(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.pattern_seed)
        channels, height, width = images.shape[1:]
        pattern = low_frequency_pattern(channels, height, width, frequencies=self.frequencies, generator=generator)
        return images + self.amplitude * pattern.to(images)
