"""learn_data: from a labeled data set on disk that may be poisoned to a trained model."""

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from goodnet.cleanse._tables import sources_of
from goodnet.cleanse.files import ARCHITECTURE, names_of, working_shape
from goodnet.core.defender import Defender
from goodnet.core.device import check_device
from goodnet.core.registry import Needs
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.data.load import load_data
from goodnet.errors import NotHeld
from goodnet.learn._base import Learned, Learner
from goodnet.models.untrained import untrained


@dataclass(frozen=True, kw_only=True)
class FileLearned:
    """What came of one data set.

    Attributes:
        samples: as they were loaded, in the shape that the network takes.
        learned: the learner's answer, in the order of ``samples``.
    """

    samples: Samples
    learned: Learned


def learn_data(
    data: str | os.PathLike[str],
    learner: Learner,
    *,
    split: str | None = None,
    limit: int | None = None,
    clean: str | os.PathLike[str] | None = None,
    sources: str | os.PathLike[str] | None = None,
    arch: str = ARCHITECTURE,
    device: str = "cpu",
    seed: int = 0,
    budget: float | None = None,
    progress: Progress | None = None,
) -> FileLearned:
    """Load a labeled data set and train on it with a learner. Nothing is written.

    Args:
        data: see ``goodnet.load_data``; labels are needed.
        learner: a method with its hyper-parameters and recipe.
        split, limit: which part of the data, and at most so many images, drawn at random by ``seed``.
        clean: images that are known to be clean, for methods that use them.
        sources: a CSV file with the columns "source" and "id" or "file", for methods that use them.
        arch: the network that is trained; images are fitted to 8 to 64 pixels a side for it.
        device: such as "cpu", "cuda" or "cuda:1".
        seed: of all of it.
        budget: seconds; None for no limit.
        progress: called with (share done, a few words).

    Raises:
        UsageError: an argument is wrong, or the method needs something that is not given.
        UnsafeFile, UnreadableFile: as ``load_data``.
    """
    check_device(device)
    if Needs.CLEAN in learner.card.needs and clean is None:
        raise NotHeld(f"{learner.card.name} needs images that are known to be clean (clean=..., or --clean PATH)")
    loaded = load_data(data, split=split, limit=limit, seed=seed)
    if loaded.labels is None:
        raise NotHeld(f"{data} has no labels; a network learns from labeled images")
    if sources is not None:
        numbers, _ = sources_of(Path(sources), loaded, names_of(data, split, loaded))
        loaded = replace(loaded, sources=numbers)
    samples = loaded.fitted_to(working_shape(loaded))
    learned = learner.run(
        Defender(
            model=untrained(arch, samples, seed).to(torch.device(device)),
            clean=None if clean is None else load_data(clean, seed=seed, shape=samples.shape),
            training_set=samples,
        ),
        seed=seed,
        budget=budget,
        progress=progress,
    )
    return FileLearned(samples=samples, learned=learned)


def write_samples(result: FileLearned, path: Path) -> None:
    """A table of id, label, and distrusted (1 or 0; empty where the method makes no such choice)."""
    samples, gone = result.samples, result.learned.distrusted
    assert samples.labels is not None
    assert samples.ids is not None
    marks = [""] * len(samples) if gone is None else [str(int(one)) for one in gone.tolist()]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "label", "distrusted"))
        writer.writerows(zip(samples.ids.tolist(), samples.labels.tolist(), marks, strict=True))
