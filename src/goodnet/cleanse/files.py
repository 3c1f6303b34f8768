"""cleanse_data: from a labeled data set on disk to a score for each image, and what is left of the set."""

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from goodnet.cleanse._base import Cleansed, Cleanser
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.registry import Needs
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.data.load import file_names, load_data
from goodnet.errors import NotHeld, UnreadableData, UsageError
from goodnet.models.input_range import guess_input_range
from goodnet.models.load import load_model
from goodnet.models.untrained import untrained
from goodnet.training import Recipe, fit

ARCHITECTURE = "small_cnn_bn"  # what is trained where no model is given
_SIDES = (8, 64)  # pixels: images are fitted to these bounds for it
_MOST_BYTES = 64 * 2**20  # of a table of sources


@dataclass(frozen=True, kw_only=True)
class FileCleansed:
    """What came of one data set.

    Attributes:
        samples: as they were loaded; sources where a table gave them.
        files: the image file of each sample, relative to the set; empty where images are no files.
        cleansed: the cleanser's answer, in the order of ``samples``.
        model: whose features were looked at; None where the method needs none.
        trained: whether that model was trained here, on the set itself.
    """

    samples: Samples
    files: tuple[str, ...]
    cleansed: Cleansed
    model: Classifier | None
    trained: bool


def cleanse_data(
    data: str | os.PathLike[str],
    cleanser: Cleanser,
    *,
    split: str | None = None,
    limit: int | None = None,
    model: str | os.PathLike[str] | None = None,
    clean: str | os.PathLike[str] | None = None,
    sources: str | os.PathLike[str] | None = None,
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
    needs = cleanser.card.needs
    for need, given, words in (
        (Needs.CLEAN, clean, "images that are known to be clean (clean=..., or --clean PATH)"),
        (Needs.SOURCES, sources, "a table of sources (sources=..., or --sources FILE)"),
    ):
        if need in needs and given is None:
            raise NotHeld(f"{cleanser.card.name} needs {words}")
    samples = load_data(data, split=split, limit=limit, seed=seed)
    if samples.labels is None:
        raise NotHeld(f"{data} has no labels; a training set is cleansed with the labels that it is trained with")
    files = names_of(data, split, samples)
    if sources is not None:
        samples = with_sources(samples, Path(sources), files)
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
    cleansed = cleanser.run(
        Defender(model=used, clean=held, training_set=fitted),
        seed=seed,
        budget=budget,
        progress=_part(progress, 1) if trained else progress,
    )
    return FileCleansed(samples=samples, files=files, cleansed=cleansed, model=used, trained=trained)


def write_kept(result: FileCleansed, folder: Path) -> None:
    """Write ``samples.csv`` (id, file, label, score, kept) and ``kept.npz``, which ``goodnet.load_data`` reads."""
    samples, cleansed = result.samples, result.cleansed
    assert samples.labels is not None
    assert samples.ids is not None
    files = result.files or ("",) * len(samples)
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "file", "label", "score", "kept"))
        columns = (samples.ids.tolist(), files, samples.labels.tolist(), cleansed.scores.tolist())
        for row, kept in zip(zip(*columns, strict=True), cleansed.keep.tolist(), strict=True):
            writer.writerow((*row[:3], f"{row[3]:.7g}", int(kept)))
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


def with_sources(samples: Samples, path: Path, files: tuple[str, ...]) -> Samples:
    """The samples with the sources of a CSV table, numbered in the order of their names.

    Raises:
        UnreadableData: no such table, other columns, or a sample that it does not name.
        UsageError: it names files, and the images are none.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UnreadableData(f"{path} is too large for a table of sources")
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableData(f"{path} cannot be read as a table: {error}") from None
    columns = set(rows[0]) if rows else set()
    key = next((name for name in ("id", "file") if name in columns), None)
    if key is None or "source" not in columns:
        raise UnreadableData(f"{path} should have the columns 'source' and 'id' or 'file' in its first line")
    if key == "file" and not files:
        raise UsageError(f"{path} names files, but these images are no files of their own; give a column 'id'")
    assert samples.ids is not None
    table = {row[key]: row["source"] for row in rows}
    wanted = list(files) if key == "file" else [str(one) for one in samples.ids.tolist()]
    missing = next((one for one in wanted if not table.get(one)), None)
    if missing is not None:
        raise UnreadableData(f"{path} names no source for the {key} {missing!r}")
    numbers = {name: number for number, name in enumerate(sorted(set(table.values())))}
    return replace(samples, sources=torch.tensor([numbers[table[one]] for one in wanted]))


def _part(progress: Progress | None, half: int) -> Progress | None:
    if progress is None:
        return None
    return lambda share, text: progress((half + share) / 2, text)
