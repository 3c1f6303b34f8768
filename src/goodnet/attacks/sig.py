"""SIG: a sinusoid over the whole picture."""

from dataclasses import dataclass

from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import sinusoid


@attacks.register(
    Card(
        name="sig",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Barni et al., ICIP 2019",
        summary="a sinusoidal stripe pattern, dirty label",
    )
)
@dataclass(frozen=True, kw_only=True)
class Sig(Attack):
    """Add amplitude * sin(2 pi column frequency / W). Labels are changed here; the paper's attack is clean-label.

    Source: Barni, Kallas, Tondi, A new backdoor attack in CNNs by training set corruption, ICIP 2019.
    """

    amplitude: float = param(20 / 255, low=0.0, high=1.0, doc="in units of [0, 1]; the paper's 20 of 255")
    frequency: float = param(6.0, low=0.0, doc="periods over the width")

    def _stamp(self, images: Tensor) -> Tensor:
        return sinusoid(images, self.amplitude, self.frequency)
