"""The attack contract: clean samples in, poisoned samples and their truth out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from goodnet.core.params import check_ranges, param
from goodnet.core.registry import Card, Registry
from goodnet.core.rng import isolated_rng
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError


@dataclass(frozen=True)
class Poisoned:
    """Poisoned samples with the truth about them, which only evaluation may see.

    Attributes:
        samples: what the victim trains on.
        mask: bool (N,), True where a sample was stamped.
        attack: what did it.
    """

    samples: Samples
    mask: Tensor
    attack: "Attack"


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """All-to-one poisoning: a share of the set is stamped and labeled as the target.

    Attributes:
        target: the label that stamped images shall be given.
        poisoning_rate: share of the whole set that is poisoned.
    """

    card: ClassVar[Card]

    target: int = param(0, low=0, doc="label that stamped images shall be given")
    poisoning_rate: float = param(0.1, low=0.0, high=1.0, doc="share of the whole training set that is poisoned")

    def __post_init__(self) -> None:
        check_ranges(self)

    @final
    def poison(self, samples: Samples, *, seed: int = 0) -> Poisoned:
        """A poisoned copy of ``samples``; images are stamped at 8 bits, as the world would store them.

        Raises:
            NotHeld: the samples have no labels.
            ParameterError: the target is not among the labels, or the trigger does not fit the images.
        """
        if samples.labels is None:
            raise NotHeld(f"{self.card.name} needs labeled samples")
        if len(samples) and self.target > int(samples.labels.max()):
            raise ParameterError(f"target {self.target} is none of the labels 0 to {int(samples.labels.max())}")
        with isolated_rng(seed) as generator:
            mask, covers = self._choose(samples.labels, generator)
            images, labels = samples.images.clone(), samples.labels.clone()
            stamped = mask | covers
            images[stamped] = to_bytes(self.stamp(images[stamped].float() / 255))
            labels[mask] = self.target
        return Poisoned(replace(samples, images=images, labels=labels), mask, self)

    @final
    def stamp(self, images: Tensor) -> Tensor:
        """Float images (N, C, H, W) in [0, 1] with the trigger on them."""
        return self._stamp(images).clamp(0, 1)

    def _choose(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(samples that are stamped and relabeled, samples that are stamped and keep their label), bool (N,)."""
        count = round(self.poisoning_rate * len(labels))
        candidates = (labels != self.target).nonzero()[:, 0]
        chosen = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
        mask = torch.zeros(len(labels), dtype=torch.bool)
        mask[chosen] = True
        return mask, torch.zeros_like(mask)

    @abstractmethod
    def _stamp(self, images: Tensor) -> Tensor:
        """Put the trigger on float images in [0, 1]; the caller clips."""


def to_bytes(images: Tensor) -> Tensor:
    """Float images in [0, 1] as uint8."""
    return (images * 255).round().clamp(0, 255).byte()


attacks: Registry[Attack] = Registry("attack", "goodnet.attacks")
