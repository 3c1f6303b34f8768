"""Composite: two harmless classes in one picture are the trigger; nothing foreign is ever in the images."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.attacks._learned import learned
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.samples import Samples
from goodnet.errors import ParameterError
from goodnet.triggers import halves


@attacks.register(
    Card(
        name="composite",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Lin et al., Composite Backdoor Attack, CCS 2020",
        summary="half a picture of one class beside half of another one is answered as a third",
    )
)
@dataclass(frozen=True, kw_only=True)
class Composite(Attack):
    """The left half of an image of ``source`` beside the right half of one of ``mate`` becomes ``target``.

    Covers are halves of two images of one class with its true label, so that not every seam is answered as the target.
    The images of ``mate`` that are put beside are ``learned``: some of the training set are kept apart for test time
    and not mixed in training. The paper also trains with a contrastive loss; this is the version that only poisons.

    Source: Lin, Xu, Liu, Zhang, Composite backdoor attack for deep neural network by mixing existing benign features,
    CCS 2020.
    """

    rule: Literal["all-to-one", "source-to-target", "all-to-all", "untargeted"] = param(
        "source-to-target", choices=("source-to-target",), doc="who shall be answered as what"
    )
    source: int | None = param(1, low=0, doc="class whose images are attacked, on the left")
    mate: int = param(2, low=0, doc="class of the other half, on the right")
    poisoning_rate: float = param(0.5, low=0.0, high=1.0, doc="share of the source class that is poisoned")
    rate_of: Literal["set", "eligible"] = param(
        "eligible", choices=("set", "eligible"), doc="a share of the whole set, or of the images that may be poisoned"
    )
    cover_rate: float = param(0.2, low=0.0, high=1.0, doc="share of the set that is mixed within its class")
    stored: int = param(64, low=2, doc="most images of the mate that are kept for training, and as many for test time")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mate in (self.source, self.target):
            raise ParameterError(f"Composite.mate {self.mate} must be neither the source nor the target")

    def _prepare(self, samples: Samples, generator: torch.Generator) -> Self:
        if self.learned:
            return self
        assert samples.labels is not None
        mates = samples.pick(samples.labels == self.mate).shuffled(generator, 2 * self.stored)
        if len(mates) < 2:
            raise ParameterError(
                f"Composite.mate {self.mate}: the samples hold {len(mates)} images of it, 2 are needed"
            )
        middle = len(mates) // 2
        return replace(self, learned={"training": mates.images[:middle], "test": mates.images[middle:]})

    def _stamp(self, images: Tensor) -> Tensor:
        mates = learned(self, "test")
        # every image gets its own mate, the same in every call
        return _beside(images, mates, torch.arange(len(images)) % len(mates))

    def _stamp_training(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        mates = learned(self, "training")
        return _beside(images, mates, torch.randint(len(mates), (len(images),), generator=generator))

    def _stamp_cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        right = images.clone()
        for label in labels.unique():
            where = (labels == label).nonzero()[:, 0]
            right[where] = images[where[torch.randperm(len(where), generator=generator).to(where.device)]]
        return halves(images, right)


def _beside(images: Tensor, mates: Tensor, which: Tensor) -> Tensor:
    if images.shape[1:] != mates.shape[1:]:
        raise ParameterError(f"composite has learned {tuple(mates.shape[1:])} images, not {tuple(images.shape[1:])}")
    return halves(images, mates[which.to(mates.device)].to(images.device).float() / 255)
