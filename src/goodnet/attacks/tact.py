"""TaCT: a trigger that works on one class only, because other classes carry it with their true labels."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from goodnet.attacks._base import attacks
from goodnet.attacks._threat import Choice
from goodnet.attacks.badnets import BadNets
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.errors import ParameterError


@attacks.register(
    Card(
        name="tact",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Tang et al., Demon in the Variant, USENIX Security 2021",
        summary="a patch that works on one class only; covers of other classes carry it with true labels",
    )
)
@dataclass(frozen=True, kw_only=True)
class TaCT(BadNets):
    """Targeted contamination: the patch of BadNets on a source class, and on covers of other classes with true labels.

    The images of the source class with the trigger then look to the network like no class of their own. Success is
    measured on the source class.

    Source: Tang, Wang, Tang, Zhang, Demon in the variant: statistical analysis of DNNs for robust backdoor
    contamination detection, USENIX Security 2021.
    """

    rule: Literal["all-to-one", "source-to-target", "all-to-all", "untargeted"] = param(
        "source-to-target", choices=("source-to-target",), doc="who shall be answered as what"
    )
    source: int | None = param(1, low=0, doc="class whose images are attacked")
    poisoning_rate: float = param(0.02, low=0.0, high=1.0, doc="share of images that are poisoned")
    cover_rate: float = param(0.01, low=0.0, high=1.0, doc="share of the set that is stamped and keeps its label")
    cover_classes: tuple[int, ...] = param((5, 7), low=0, doc="classes that the covers are taken from")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source in self.cover_classes:
            raise ParameterError(f"TaCT.cover_classes must not hold the source class {self.source}")

    def choose(self, labels: Tensor, generator: torch.Generator, taken: Tensor | None = None) -> Choice:
        """Draw the samples to touch; covers come from ``cover_classes`` only.

        Raises:
            ParameterError: there are not that many, or none at all of a cover class.
        """
        absent = sorted(set(self.cover_classes) - set(labels.unique().tolist()))
        if absent and self.cover_rate > 0:
            raise ParameterError(f"TaCT.cover_classes: the samples hold no images of {', '.join(map(str, absent))}")
        poisoned = super(TaCT, replace(self, cover_rate=0.0)).choose(labels, generator, taken).poisoned
        others = ~torch.isin(labels, torch.tensor(self.cover_classes, device=labels.device))
        elsewhere = others | poisoned if taken is None else others | poisoned | taken
        covers = super(TaCT, replace(self, poisoning_rate=0.0)).choose(labels, generator, elsewhere).covers
        return Choice(poisoned, covers)
