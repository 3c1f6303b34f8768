"""Several triggers to several targets: one backdoored model, many keys."""

from dataclasses import dataclass

from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.attacks.badnets import BadNets
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.errors import ParameterError


@attacks.register(
    Card(
        name="multi-trigger",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Wang et al., Neural Cleanse, IEEE S&P 2019, section VII",
        summary="squares in several places, each to a target of its own",
    )
)
@dataclass(frozen=True, kw_only=True)
class MultiTrigger(Attack):
    """A square in another place for each target; the poisoning rate holds for each of them.

    Success is measured trigger by trigger, on ``parts()``; ``stamp`` puts the first one on.

    Source: Wang et al., Neural Cleanse, IEEE S&P 2019, section VII-C (several infected labels with separate triggers).
    """

    poisoning_rate: float = param(0.05, low=0.0, high=1.0, doc="share of images that are poisoned, for each trigger")
    targets: tuple[int, ...] = param((0, 1, 2), low=0, doc="one label for each trigger")
    sizes: tuple[int, ...] = param((3,), low=1, doc="side of each square, or one for all, pixels")
    color: tuple[float, ...] = param((1.0,), low=0.0, high=1.0, doc="one value in [0, 1] per channel, or one for all")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.targets) <= len(_PLACES):
            raise ParameterError(f"MultiTrigger.targets must hold 1 to {len(_PLACES)} labels, got {len(self.targets)}")
        if len(self.sizes) not in (1, len(self.targets)):
            raise ParameterError("MultiTrigger.sizes must hold one size, or one for each target")
        if self.clean_label or self.rule != "all-to-one":
            raise ParameterError("MultiTrigger is all-to-one with changed labels for each of its triggers")

    def parts(self) -> tuple[Attack, ...]:
        sizes = self.sizes * len(self.targets) if len(self.sizes) == 1 else self.sizes
        return tuple(
            BadNets(
                target=target,
                poisoning_rate=self.poisoning_rate,
                rate_of=self.rate_of,
                cover_rate=self.cover_rate,
                size=size,
                row=row,
                column=column,
                color=self.color,
            )
            for target, size, (row, column) in zip(self.targets, sizes, _PLACES, strict=False)
        )

    def _stamp(self, images: Tensor) -> Tensor:
        return self.parts()[0].stamp(images)


_PLACES = ((-2, -2), (1, 1), (-2, 1), (1, -2))  # the four corners, one pixel off the edges
