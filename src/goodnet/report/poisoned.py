"""write_poisoned: a poisoned data set as a folder, with a sheet of samples on which a person sees the trigger."""

import os
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor

from goodnet.attacks import Poisoned, save_poisoned
from goodnet.attacks._files import POISONED, TRUTH
from goodnet.core.samples import Samples
from goodnet.core.whole_folder import require_own, whole_folder
from goodnet.report._drawing import LIGHT, blank, png

_SHEET = "samples.png"
_CONTENTS = (POISONED, TRUTH, _SHEET, "attack.json", "attack.safetensors")
_MOST_SHOWN, _MOST_COVERS = 8, 2
_FACTORS = (50, 20, 10, 5, 2, 1)  # by which differences are multiplied
_LONGEST_NAME = 16  # characters
_CELL, _MARGIN, _HEADER, _NARROWEST = 1.5, 1.1, 0.75, 5.0  # inches


def require_poisoned_folder(folder: str | os.PathLike[str]) -> None:
    """Raise UsageError if ``folder`` holds anything but what ``write_poisoned`` wrote."""
    require_own(Path(folder), _CONTENTS, marks=(TRUTH,))


def write_poisoned(folder: str | os.PathLike[str], poisoned: Poisoned, clean: Samples) -> None:
    """Write ``poisoned.npz``, ``truth.npz``, ``attack.json`` (see ``save_poisoned``) and ``samples.png``.

    The folder appears complete or not at all; one that this function wrote before is replaced.

    Args:
        folder: where.
        poisoned: what ``Attack.poison`` gave.
        clean: what it was given.

    Raises:
        UsageError: ``folder`` holds something else.
        NotHeld: there are no labels.
    """
    require_poisoned_folder(folder)
    with whole_folder(Path(folder)) as made:
        save_poisoned(poisoned, clean, made)
        (made / _SHEET).write_bytes(poisoned_sheet(poisoned, clean))


def poisoned_sheet(poisoned: Poisoned, clean: Samples) -> bytes:
    """Some poisoned images and covers as PNG: before, after, and the difference, multiplied so that it shows.

    The difference is that of each channel without its sign, black where nothing changed. Where nothing was poisoned,
    images are shown that stayed as they were.

    Args:
        poisoned: what ``Attack.poison`` gave.
        clean: what it was given, with labels.
    """
    assert clean.labels is not None
    assert poisoned.samples.labels is not None
    where = _shown(poisoned, clean.labels)
    before, after = clean.images[where].float() / 255, poisoned.samples.images[where].float() / 255
    difference = (after - before).abs()
    factor = _factor(difference)
    rows = {"before": before, "after": after, f"difference × {factor}": (difference * factor).clamp(0, 1)}
    columns = len(where)
    figure = blank(LIGHT, max(_NARROWEST, _MARGIN + columns * _CELL), _HEADER + 3.35 * _CELL, dpi=120)
    figure.suptitle(_title(poisoned), color=LIGHT.text, fontsize=11, parse_math=False)
    axes = figure.subplots(3, columns, squeeze=False)
    for row, (name, images) in enumerate(rows.items()):
        for column, index in enumerate(where.tolist()):
            _draw(axes[row, column], images[column])
            words = (_name(clean, clean.labels[index]), _given(poisoned, clean, index), "")[row]
            changed = row == 1 and bool(poisoned.mask[index])
            color = LIGHT.flagged if changed else LIGHT.muted
            axes[row, column].set_title(words, color=color, fontsize=8, parse_math=False)
        axes[row, 0].set_ylabel(name, color=LIGHT.text, fontsize=10)
    return png(figure)


def _shown(poisoned: Poisoned, labels: Tensor) -> Tensor:
    """Positions of poisoned images and of covers, int64, each from as many classes as possible."""
    covers = _varied(poisoned.covers, labels, _MOST_COVERS)
    chosen = torch.cat([_varied(poisoned.mask, labels, _MOST_SHOWN - len(covers)), covers])
    return chosen if len(chosen) else torch.arange(min(len(labels), _MOST_SHOWN))


def _varied(touched: Tensor, labels: Tensor, most: int) -> Tensor:
    """At most so many positions of what was touched: the first of each class, then the second, and so on."""
    places = touched.nonzero()[:, 0]
    seen: dict[int, int] = {}
    turns = []
    for label in labels[places].tolist():
        turns.append((seen.get(label, 0), label))
        seen[label] = seen.get(label, 0) + 1
    order = sorted(range(len(places)), key=turns.__getitem__)
    return places[torch.tensor(order[:most], dtype=torch.int64)]


def _factor(difference: Tensor) -> int:
    """By how much differences in [0, 1] can be multiplied so that nearly all of them stay below 1."""
    changed = difference[difference > 0].sort().values
    large = float(changed[int(0.95 * len(changed))]) if len(changed) else 1.0
    return next((factor for factor in _FACTORS if factor * large <= 1), 1)


def _draw(axes: Axes, image: Tensor) -> None:
    """An image (C, H, W) in [0, 1], without a frame; grey unless it has three channels."""
    pixels = image.permute(1, 2, 0) if image.shape[0] == 3 else image.mean(0)
    axes.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(LIGHT.grid)


def _title(poisoned: Poisoned) -> str:
    touched, covers, total = int(poisoned.mask.sum()), int(poisoned.covers.sum()), len(poisoned.samples)
    also = f", {covers:,} covers" if covers else ""
    return f"{poisoned.attack.card.name}: {touched:,} of {total:,} images poisoned{also}"


def _given(poisoned: Poisoned, clean: Samples, index: int) -> str:
    """The label that an image is trained with, and how it came by that."""
    assert clean.labels is not None
    assert poisoned.samples.labels is not None
    label = poisoned.samples.labels[index]
    name = _name(clean, label)
    if poisoned.covers[index]:
        return f"cover: {name}"
    return f"{name}, kept" if label == clean.labels[index] else f"→ {name}"


def _name(samples: Samples, label: Tensor) -> str:
    """A label, with the name of its class where that is one and in letters that every font has."""
    number = int(label)
    name = samples.class_names[number] if number < len(samples.class_names) else ""
    if name in ("", str(number)) or not (name.isascii() and name.isprintable()):
        return str(number)
    return f"{number} {name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + '…'}"
