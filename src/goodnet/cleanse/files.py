"""cleanse_data: from a labeled data set on disk to a score for each image, and what is left of the set."""

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from goodnet.cleanse._base import Cleansed, Cleanser
from goodnet.cleanse._tables import MARKS, marks_of, sources_of
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.device import check_device
from goodnet.core.registry import Needs
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.data.load import file_names, load_data
from goodnet.errors import NotHeld
from goodnet.models.input_range import guess_input_range
from goodnet.models.load import load_model
from goodnet.models.untrained import untrained
from goodnet.training import Recipe, fit

ARCHITECTURE = "small_cnn_bn"  # what is trained where no model is given
_SIDES = (8, 64)  # pixels: images are fitted to these bounds for it


@dataclass(frozen=True, kw_only=True)
class FileCleansed:
    """What came of one data set.

    Attributes:
        samples: as they were loaded; sources where a table gave them.
        files: the image file of each sample, relative to the set; empty where images are no files.
        cleansed: the cleanser's answer, in the order of ``samples``.
        model: whose features were looked at; None where the method needs none.
        trained: whether that model was trained here, on the set itself.
        source_names: name of source 0, 1, ... in the table that was given; empty without one.
        marks: "clean", "poisoned" or "" for each sample, as a person wrote them; empty without a table.
    """

    samples: Samples
    files: tuple[str, ...]
    cleansed: Cleansed
    model: Classifier | None
    trained: bool
    source_names: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


def cleanse_data(
    data: str | os.PathLike[str],
    cleanser: Cleanser,
    *,
    split: str | None = None,
    limit: int | None = None,
    model: str | os.PathLike[str] | None = None,
    clean: str | os.PathLike[str] | None = None,
    sources: str | os.PathLike[str] | None = None,
    marks: str | os.PathLike[str] | None = None,
    arch: str | None = None,
    input_range: str | None = None,
    recipe: Recipe = Recipe(learning_rate=1e-3, optimizer="adam"),  # noqa: B008 - a frozen value
    device: str = "cpu",
    seed: int = 0,
    budget: float | None = None,
    progress: Progress | None = None,
) -> FileCleansed:
    """Load a labeled data set, train a model on it where none is given, and score every image. Nothing is written.

    Args:
        data: see ``goodnet.load_data``; labels are needed.
        cleanser: a method with its hyper-parameters, such as ``cleansers["spectral-signatures"]()``.
        split, limit: which part of the data, and at most so many images, drawn at random by ``seed``.
        model: a file that ``goodnet.load_model`` reads, trained on this set; None trains one where the method needs it.
        clean: images that are known to be clean, for methods that need them.
        sources: a CSV file with the columns "source" and "id" or "file", for methods that need them.
        marks: a CSV file with the columns "id" and "mark", such as samples.csv of an earlier cleansing in which a
            person wrote "clean" or "poisoned" into some lines: those stay, these go, whatever the method says. Methods
            that use clean images are given the ones marked clean, beside those of ``clean``.
        arch: for model files that hold only weights; without a model the network that is trained.
        input_range: what the model was trained on; None takes what its file says, else guesses it from the images.
        recipe: how a model is trained where none is given.
        device: such as "cpu", "cuda" or "cuda:1".
        seed: of all of it.
        budget: seconds for the cleanser itself; None for no limit.
        progress: called with (share done, a few words).

    Raises:
        UsageError: an argument is wrong, or the method needs something that is not given.
        UnsafeFile, UnreadableFile: as ``load_data`` and ``load_model``.
    """
    check_device(device)
    needs = cleanser.card.needs
    for need, given, words in (
        (Needs.CLEAN, clean or marks, "images that are known to be clean (clean=..., or --clean PATH)"),
        (Needs.SOURCES, sources, "a table of sources (sources=..., or --sources FILE)"),
    ):
        if need in needs and given is None:
            raise NotHeld(f"{cleanser.card.name} needs {words}")
    samples = load_data(data, split=split, limit=limit, seed=seed)
    if samples.labels is None:
        raise NotHeld(f"{data} has no labels; a training set is cleansed with the labels that it is trained with")
    files = names_of(data, split, samples)
    marked: tuple[str, ...] = () if marks is None else marks_of(Path(marks), samples, files)
    source_names: tuple[str, ...] = ()
    if sources is not None:
        numbers, source_names = sources_of(Path(sources), samples, files)
        samples = replace(samples, sources=numbers)
    used, trained, fitted = None, False, samples
    if model is not None:
        used = load_model(model, arch=arch, input_range=input_range)
        fitted = samples.fitted_to(used.input_shape)
        if input_range is None and not Path(model).is_dir():  # folders of save_model say how images are prepared
            used = guess_input_range(used, fitted)
        used = used.to(torch.device(device))
    elif Needs.MODEL in needs:
        fitted, trained = samples.fitted_to(working_shape(samples)), True
        start = untrained(arch or ARCHITECTURE, fitted, seed).to(torch.device(device))
        used = fit(start, fitted, recipe, seed=seed, progress=_part(progress, 0))
    held = load_data(clean, seed=seed, shape=fitted.shape) if clean is not None else None
    held = _joined(held, fitted, marked)
    if Needs.CLEAN in needs and held is None:
        raise NotHeld(f"{cleanser.card.name} needs clean images, and {marks} marks none as clean; give --clean PATH")
    cleansed = cleanser.run(
        Defender(model=used, clean=held, training_set=fitted),
        seed=seed,
        budget=budget,
        progress=_part(progress, 1) if trained else progress,
    )
    return FileCleansed(
        samples=samples,
        files=files,
        cleansed=heeding(cleansed, samples, marked),
        model=used,
        trained=trained,
        source_names=source_names,
        marks=marked,
    )


def heeding(cleansed: Cleansed, samples: Samples, marks: tuple[str, ...]) -> Cleansed:
    """The same answer, but what is marked clean stays and what is marked poisoned goes, whatever it says."""
    assert samples.labels is not None
    if not any(marks):
        return cleansed
    clean, poisoned = (torch.tensor([mark == one for mark in marks]) for one in MARKS)
    keep = (cleansed.keep | clean) & ~poisoned
    return replace(
        cleansed,
        keep=keep,
        rule=f"{cleansed.rule}; then by hand: {int(clean.sum())} marked clean stay, {int(poisoned.sum())} marked "
        "poisoned go",
        per_class=tuple(
            replace(one, removed=int((~keep[samples.labels == one.label]).sum())) for one in cleansed.per_class
        ),
    )


def _joined(held: Samples | None, fitted: Samples, marks: tuple[str, ...]) -> Samples | None:
    """The clean images that are held, and those of the set that are marked clean; None where there are none."""
    marked = fitted.pick(torch.tensor([mark == "clean" for mark in marks])) if "clean" in marks else None
    if held is None or marked is None:
        return held if marked is None else marked
    labels = None if held.labels is None or marked.labels is None else torch.cat((held.labels, marked.labels))
    return Samples(torch.cat((held.images, marked.images)), labels=labels, class_names=held.class_names)


def write_kept(result: FileCleansed, folder: Path) -> None:
    """Write ``samples.csv`` (id, file, label, score, kept, mark) and ``kept.npz``, which ``load_data`` reads."""
    samples, cleansed = result.samples, result.cleansed
    assert samples.labels is not None
    assert samples.ids is not None
    files = result.files or ("",) * len(samples)
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "file", "label", "score", "kept", "mark"))
        scores = (f"{score:.7g}" for score in cleansed.scores.tolist())
        kept_ones = (int(kept) for kept in cleansed.keep.tolist())
        marks = result.marks or ("",) * len(samples)
        writer.writerows(
            zip(samples.ids.tolist(), files, samples.labels.tolist(), scores, kept_ones, marks, strict=True)
        )
    kept = samples.pick(cleansed.keep)
    assert kept.labels is not None
    # not compressed: images hardly shrink, and what is mostly one color would look like a bomb to a careful reader
    np.savez(folder / "kept.npz", images=kept.images.numpy(), labels=kept.labels.numpy())


def names_of(data: str | os.PathLike[str], split: str | None, samples: Samples) -> tuple[str, ...]:
    """The image file of each sample, relative to the set; empty where images are no files."""
    assert samples.ids is not None
    listed = file_names(data, split=split)
    return tuple(listed[one] for one in samples.ids.tolist()) if listed else ()


def working_shape(samples: Samples) -> tuple[int, int, int]:
    """The shape in which images are learned from: sides within bounds, so that training stays a matter of minutes."""
    channels, height, width = samples.shape
    low, high = _SIDES
    return channels, min(max(height, low), high), min(max(width, low), high)


def _part(progress: Progress | None, half: int) -> Progress | None:
    if progress is None:
        return None
    return lambda share, text: progress((half + share) / 2, text)
