"""The attack contract: clean samples in, poisoned samples or a backdoored model and their truth out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from goodnet.attacks._threat import ThreatModel
from goodnet.core.classifier import Classifier
from goodnet.core.registry import Card, Registry
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError
from goodnet.training import Recipe, fit

_CHUNK = 1024  # images stamped at a time


@dataclass(frozen=True)
class Poisoned:
    """Poisoned samples with the truth about them, which only evaluation may see.

    Attributes:
        samples: what the victim trains on.
        mask: bool (N,), True where a sample was stamped to plant the backdoor.
        covers: bool (N,), True where a sample was stamped and keeps its label, to hide it.
        attack: what did it, with whatever trigger it has learned.
    """

    samples: Samples
    mask: Tensor
    covers: Tensor
    attack: "Attack"


@dataclass(frozen=True)
class Backdoored:
    """A model with a backdoor, and the attack that can fire it."""

    model: Classifier
    attack: "Attack"


@dataclass(frozen=True, kw_only=True)
class Attack(ThreatModel, ABC):
    """A threat model with a trigger. A method is a frozen dataclass of hyper-parameters with one hook, ``_stamp``.

    The base class chooses samples, stamps them at 8 bits, relabels and clips. What the attacker must control is in the
    card's needs: TRAINING_SET for poisoning, TRAINING for those who run the training themselves.

    Attributes:
        learned: arrays of a trigger that was learned from data (a generator's weights, a pattern); empty before.
    """

    card: ClassVar[Card]

    learned: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def parts(self) -> tuple["Attack", ...]:
        """The attacks, each with one trigger and one goal, that this one is made of."""
        return (self,)

    @final
    def poison(self, samples: Samples, *, seed: int = 0) -> Poisoned:
        """A poisoned copy of ``samples``; images are stamped at 8 bits, as the world would store them.

        Raises:
            NotHeld: the samples have no labels.
            ParameterError: a label is not among those of the samples, the trigger does not fit the images, or fewer
                images than wanted may be poisoned.
        """
        labels = self._checked_labels(samples)
        num_classes = int(labels.max()) + 1 if len(labels) else 1
        with isolated_rng(seed) as generator:
            ready = self._prepare(samples, generator)
            images, new = samples.images.clone(), labels.clone()
            mask, covers = torch.zeros_like(labels, dtype=torch.bool), torch.zeros_like(labels, dtype=torch.bool)
            for part in ready.parts():
                choice = part.choose(labels, generator, taken=mask | covers)
                for touched, stamp in ((choice.poisoned, part._stamp_training), (choice.covers, part._stamp_cover)):
                    for where in touched.nonzero()[:, 0].split(_CHUNK):
                        stamped = stamp(images[where].float() / 255, labels[where], generator)
                        images[where] = to_bytes(stamped)
                new[choice.poisoned] = part.new_labels(labels[choice.poisoned], num_classes, generator)
                mask, covers = mask | choice.poisoned, covers | choice.covers
        return Poisoned(replace(samples, images=images, labels=new), mask, covers, ready)

    @final
    @torch.no_grad()
    def stamp(self, images: Tensor) -> Tensor:
        """Float images (N, C, H, W) in [0, 1] with the trigger of an attack at test time on them."""
        chunks = [self._stamp(chunk).clamp(0, 1) for chunk in images.split(_CHUNK)]
        return torch.cat(chunks) if chunks else images.clone()

    @final
    def train(
        self,
        model: Classifier,
        samples: Samples,
        recipe: Recipe = Recipe(),  # noqa: B008 - a frozen value
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Backdoored:
        """A backdoored copy of ``model``, trained on ``samples`` as this attack does it; both are left alone.

        Raises:
            NotHeld, ParameterError: as ``poison``.
        """
        self._checked_labels(samples)
        return self._train(model, samples, recipe, seed, progress)

    def _checked_labels(self, samples: Samples) -> Tensor:
        if samples.labels is None:
            raise NotHeld(f"{self.card.name} needs labeled samples")
        last = int(samples.labels.max()) if len(samples) else 0
        for part in self.parts():
            for name, label in (("target", part.target), ("source", part.source)):
                if label is not None and label > last and len(samples):
                    raise ParameterError(f"{name} {label} is none of the labels 0 to {last}")
        return samples.labels

    @abstractmethod
    def _stamp(self, images: Tensor) -> Tensor:
        """Put the trigger on float images in [0, 1]; the caller clips."""

    def _prepare(self, samples: Samples, generator: torch.Generator) -> Self:
        """This attack with its trigger ``learned`` from the samples; what it holds already is not learned anew."""
        return self

    def _stamp_training(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Stamp what the victim trains on, where that differs from test time; ``labels`` are the true ones."""
        return self._stamp(images)

    def _stamp_cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Stamp the samples that keep their labels."""
        return self._stamp_training(images, labels, generator)

    def _train(
        self, model: Classifier, samples: Samples, recipe: Recipe, seed: int, progress: Progress | None
    ) -> Backdoored:
        """Train the victim: on poisoned samples, unless the attacker runs the training."""
        poisoned = self.poison(samples, seed=seed)
        return Backdoored(fit(model, poisoned.samples, recipe, seed=seed, progress=progress), poisoned.attack)


def to_bytes(images: Tensor) -> Tensor:
    """Float images in [0, 1] as uint8."""
    return (images * 255).round().clamp(0, 255).byte()


attacks: Registry[Attack] = Registry("attack", "goodnet.attacks")
