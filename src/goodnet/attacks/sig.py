"""SIG: a sinusoid over the whole picture, with true labels."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import sinusoid


@attacks.register(
    Card(
        name="sig",
        version=2,
        needs=Needs.TRAINING_SET,
        source="Barni et al., ICIP 2019",
        summary="a sinusoidal stripe pattern on images of the target class, labels stay true",
    )
)
@dataclass(frozen=True, kw_only=True)
class Sig(Attack):
    """Add amplitude * sin(2 pi column frequency / W) to images of the target class, whose labels stay true.

    The wave may be stronger at test time than in training: the attacker owns the images that are stamped there. With
    ``clean_label=False`` and ``rate_of="set"`` it is the dirty-label variant that many benchmarks run.

    Source: Barni, Kallas, Tondi, A new backdoor attack in CNNs by training set corruption, ICIP 2019.
    """

    poisoning_rate: float = param(0.3, low=0.0, high=1.0, doc="share of the target class that is poisoned")
    rate_of: Literal["set", "eligible"] = param(
        "eligible", choices=("set", "eligible"), doc="a share of the whole set, or of the images that may be poisoned"
    )
    clean_label: bool = param(True, doc="stamp images of the target class only, so that all labels stay true")
    amplitude: float = param(20 / 255, low=0.0, high=1.0, doc="in training, in units of [0, 1]")
    test_amplitude: float | None = param(None, low=0.0, high=1.0, doc="at test time; None: as in training")
    frequency: float = param(6.0, low=0.0, doc="periods over the width")

    def _stamp(self, images: Tensor) -> Tensor:
        amplitude = self.amplitude if self.test_amplitude is None else self.test_amplitude
        return sinusoid(images, amplitude, self.frequency)

    def _stamp_training(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return sinusoid(images, self.amplitude, self.frequency)
