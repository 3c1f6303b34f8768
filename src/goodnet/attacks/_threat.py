"""The threat model as a value: which images are poisoned, how they are labeled, and what counts as success."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goodnet.core.params import check_ranges, param
from goodnet.errors import ParameterError

_RULES = ("all-to-one", "source-to-target", "all-to-all", "untargeted")


@dataclass(frozen=True)
class Choice:
    """Samples that are touched, bool (N,) each: ``poisoned`` are stamped and relabeled, ``covers`` keep their label."""

    poisoned: Tensor
    covers: Tensor


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """What an attacker wants and how much of the training set is touched for it.

    Attributes:
        rule: who shall be answered as what. all-to-one: everything as ``target``; source-to-target: the class
            ``source`` as ``target``; all-to-all: class y as y + 1; untargeted: anything but the true label.
        target, source: labels.
        poisoning_rate: share that is stamped and relabeled.
        rate_of: what that is a share of: the whole training set, or the images that may be poisoned (the source class;
            the target class where labels stay true; all others).
        clean_label: only images of the target class are stamped, so that every label stays true.
        cover_rate: share of the whole set that is stamped too and keeps its label.
    """

    target: int = param(0, low=0, doc="label that stamped images shall be given")
    rule: Literal["all-to-one", "source-to-target", "all-to-all", "untargeted"] = param(
        "all-to-one", choices=_RULES, doc="who shall be answered as what"
    )
    source: int | None = param(None, low=0, doc="class whose images are attacked, for the rule source-to-target")
    poisoning_rate: float = param(0.1, low=0.0, high=1.0, doc="share of images that are poisoned")
    rate_of: Literal["set", "eligible"] = param(
        "set", choices=("set", "eligible"), doc="a share of the whole set, or of the images that may be poisoned"
    )
    clean_label: bool = param(False, doc="stamp images of the target class only, so that all labels stay true")
    cover_rate: float = param(0.0, low=0.0, high=1.0, doc="share of the set that is stamped and keeps its label")

    def __post_init__(self) -> None:
        check_ranges(self)
        name = type(self).__name__
        if (self.rule == "source-to-target") != (self.source is not None):
            raise ParameterError(f"{name}: the rule source-to-target, and no other, needs a source class")
        if self.source == self.target:
            raise ParameterError(f"{name}.source and {name}.target are both {self.target}")
        if self.clean_label and self.rule != "all-to-one":
            raise ParameterError(f"{name}.clean_label goes with the rule all-to-one only, not with {self.rule}")

    def eligible(self, labels: Tensor) -> Tensor:
        """The images that may be poisoned, bool (N,)."""
        if self.clean_label:
            return labels == self.target
        if self.source is not None:
            return labels == self.source
        if self.rule == "all-to-one":
            return labels != self.target
        return torch.ones_like(labels, dtype=torch.bool)

    def goal(self, labels: Tensor, num_classes: int) -> Tensor:
        """The answer wanted for stamped images with these labels, int64 (N,); untargeted: -1, any wrong answer."""
        if self.rule == "all-to-all":
            return (labels + 1) % num_classes
        return torch.full_like(labels, -1 if self.rule == "untargeted" else self.target)

    def victims(self, labels: Tensor) -> Tensor:
        """The images on which success is measured, bool (N,): never those that are of the wanted class already."""
        if self.source is not None:
            return labels == self.source
        if self.rule == "all-to-one":
            return labels != self.target
        return torch.ones_like(labels, dtype=torch.bool)

    def new_labels(self, labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
        """The labels that poisoned images are given; untargeted: a random wrong one."""
        if self.rule != "untargeted":
            return self.goal(labels, num_classes)
        away = torch.randint(1, max(2, num_classes), labels.shape, generator=generator)
        return (labels + away.to(labels.device)) % num_classes

    def choose(self, labels: Tensor, generator: torch.Generator, taken: Tensor | None = None) -> Choice:
        """Draw the samples to touch, none of those that are ``taken``.

        Raises:
            ParameterError: there are not that many.
        """
        free = torch.ones_like(labels, dtype=torch.bool) if taken is None else ~taken
        eligible = self.eligible(labels) & free
        base = len(labels) if self.rate_of == "set" else int(eligible.sum())
        count = round(self.poisoning_rate * base)
        poisoned = _draw(eligible, count, generator, f"poisoning_rate {self.poisoning_rate}")
        others = free & ~poisoned
        if self.rule == "source-to-target":
            others &= labels != self.source
        covers = _draw(others, round(self.cover_rate * len(labels)), generator, f"cover_rate {self.cover_rate}")
        return Choice(poisoned, covers)


def _draw(among: Tensor, count: int, generator: torch.Generator, name: str) -> Tensor:
    candidates = among.nonzero()[:, 0]
    if count > len(candidates):
        raise ParameterError(f"{name} asks for {count} images and {len(candidates)} may be taken; lower it")
    chosen = torch.zeros_like(among)
    chosen[candidates[torch.randperm(len(candidates), generator=generator)[:count]]] = True
    return chosen
