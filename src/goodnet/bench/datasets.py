"""Data sets of benchmarks: by name under one folder, split in the same way everywhere."""

from dataclasses import replace
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from goodnet.core.samples import Samples
from goodnet.data.load import load_data
from goodnet.errors import UnreadableData, UsageError

_TEST_SHARE = 0.2  # of a set that its owners have not split


class DataSpec(BaseModel):
    """What a cell trains and tests on.

    Attributes:
        name: "digits", or a folder under the benchmark's data folder in a layout that ``load_data`` reads.
        train, test: at most so many images of each split, drawn by ``seed``; None for all.
        fewest: keep only the classes with at least so many images; for sets of people.
        most: of each class at most so many, drawn by ``seed``; None for all.
        seed: of these draws, and of the split where the owners made none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    train: int | None = Field(None, ge=1)
    test: int | None = Field(None, ge=1)
    fewest: int = Field(0, ge=0)
    most: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)


def open_data(spec: DataSpec, root: Path | None) -> tuple[Samples, Samples]:
    """(training images, test images) of a specification; ``root`` holds the data sets by name.

    Raises:
        UnreadableData: no such set.
        UsageError: it is not below ``root``.
    """
    place = "digits" if spec.name == "digits" else below(root, spec.name)
    whole = load_data(place) if spec.fewest or spec.most else None
    if whole is None:
        train = load_data(place, limit=spec.train, seed=spec.seed)
        return train, load_data(place, split="test", limit=spec.test, seed=spec.seed)
    return _split(_selected(whole, spec), spec)


def below(root: Path | None, name: str) -> Path:
    """A file or folder below the data folder; suites come from strangers, so nothing above it is read.

    Raises:
        UsageError: ``root`` is None, or the name leads out of it.
    """
    if root is None:
        raise UsageError(f"{name!r} is read from the data folder; say which with --data")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UsageError(f"{name!r} leads out of the data folder")
    return root / name


def _selected(samples: Samples, spec: DataSpec) -> Samples:
    """The classes that are large enough, relabeled 0, 1, ... in their order."""
    if samples.labels is None:
        raise UnreadableData(f"{spec.name} has no labels")
    counts, draw = samples.labels.bincount(), torch.Generator().manual_seed(spec.seed)
    kept = (counts >= max(1, spec.fewest)).nonzero()[:, 0]
    if not len(kept):
        raise UnreadableData(f"no class of {spec.name} has fewest = {spec.fewest} images")
    places = [(samples.labels == label).nonzero()[:, 0] for label in kept.tolist()]
    chosen = torch.cat([place[torch.randperm(len(place), generator=draw)[: spec.most]] for place in places])
    names = tuple(samples.class_names[label] for label in kept.tolist()) if samples.class_names else ()
    labels = torch.searchsorted(kept, samples.labels[chosen])
    return replace(samples.pick(chosen), labels=labels, class_names=names)


def _split(samples: Samples, spec: DataSpec) -> tuple[Samples, Samples]:
    """Every class split at the same share, at least one image on either side."""
    assert samples.labels is not None
    draw, tested = torch.Generator().manual_seed(spec.seed + 1), torch.zeros(len(samples), dtype=torch.bool)
    for label in range(int(samples.labels.max()) + 1):
        place = (samples.labels == label).nonzero()[:, 0]
        count = max(1, round(_TEST_SHARE * len(place)))
        tested[place[torch.randperm(len(place), generator=draw)[:count]]] = True
    train, test = samples.pick(~tested), samples.pick(tested)
    shuffle = torch.Generator().manual_seed(spec.seed + 2)
    return train.shuffled(shuffle, spec.train or len(train)), test.shuffled(shuffle, spec.test or len(test))
