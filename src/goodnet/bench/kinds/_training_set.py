"""The training set of a net with the truth about it, for cells whose defender owns it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from goodnet.bench.datasets import DataSpec, open_data
from goodnet.bench.kinds._common import attack_of
from goodnet.bench.rows import SourceSpec
from goodnet.core.samples import Samples


@dataclass(frozen=True)
class TrainingSet:
    """What a net is trained on.

    Attributes:
        samples: poison and covers included; what the defender holds.
        poisoned, covers: bool (N,), as in ``Poisoned``; the truth, which evaluation alone may see.
        test: labeled test images.
    """

    samples: Samples
    poisoned: Tensor
    covers: Tensor
    test: Samples


def training_set_of(parameters: Mapping[str, Any], data: Path | None) -> TrainingSet:
    """That of the "model" cell with these parameters, poisoned again by the same seed."""
    train, test = open_data(DataSpec.model_validate(parameters["data"]), data)
    attack = attack_of(parameters["attack"], data)
    if attack is None:
        nothing = torch.zeros(len(train), dtype=torch.bool)
        return TrainingSet(samples=train, poisoned=nothing, covers=nothing, test=test)
    made = attack.poison(train, seed=parameters["seed"])
    return TrainingSet(samples=made.samples, poisoned=made.mask, covers=made.covers, test=test)


def with_sources(owned: TrainingSet, described: Mapping[str, Any] | None, seed: int) -> Samples:
    """The samples with the sources that a row asks for; with their own, if any, where it asks for none."""
    if described is None:
        return owned.samples
    spec, generator = SourceSpec.model_validate(described), torch.Generator().manual_seed(seed)
    honest, marked = spec.count - spec.poisoned, owned.poisoned | owned.covers
    brought, clean = marked.nonzero()[:, 0], (~marked).nonzero()[:, 0]
    sources = torch.empty_like(marked, dtype=torch.int64)
    sources[brought] = honest + _shuffled(torch.arange(len(brought)) % spec.poisoned, generator)
    places = torch.arange(len(clean)) % honest
    if spec.mixed:
        size = -(-len(marked) // spec.count)  # rounded up, so that there is a place for all
        room = (size - sources[brought].bincount(minlength=spec.count)).clamp(min=0)
        places = torch.arange(spec.count).repeat_interleave(room)
    sources[clean] = _shuffled(places, generator)[: len(clean)]
    return replace(owned.samples, sources=sources)


def _shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randperm(len(values), generator=generator)]
