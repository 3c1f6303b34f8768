"""load_data: the one entrance for images, whatever their layout."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from goodnet.core.samples import Samples
from goodnet.data._images import Picture, decode
from goodnet.data._layout import Layout, Selection, layouts
from goodnet.errors import UnreadableData

_DEEPEST_WRAPPING = 4  # folders that hold nothing but one folder, as archives leave them


def load_data(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
) -> Samples:
    """Read images from a file, a folder or a bundled set; the layout is recognized.

    Args:
        path: a path, or "digits" for the bundled set; write "./digits" for a folder of that name.
        split: "train", "test" ...; None for the first that the set has, which is "train" where there is one.
        limit: at most that many images, drawn at random before anything is decoded; in the order of the set.
        seed: of that draw.
        shape: (C, H, W) that a model wants; None for the data's own.

    Returns:
        uint8 images (N, C, H, W), labels where known, and notes on what was skipped or changed.

    Raises:
        UnreadableData: nothing there, no layout recognized, or the data is damaged.
        UnsafeFile: reading it the usual way would execute something; nothing was executed.
        UsageError: limit, seed or shape out of range, or a split that the set does not have.
    """
    selection = Selection(split=split, limit=limit, seed=seed, shape=shape)
    layout, place = _found(path)
    samples = layout.load(place, selection)
    return samples if shape is None else samples.fitted_to(shape)


def file_names(path: str | os.PathLike[str], *, split: str | None = None) -> tuple[str, ...]:
    """The image file of each id that ``load_data`` gives for this path and split; empty where images are no files.

    Raises:
        UnreadableData, UsageError: as ``load_data``.
    """
    layout, place = _found(path)
    return () if layout.files is None else layout.files(place, Selection(split=split))


def _found(path: str | os.PathLike[str]) -> tuple[Layout, Path]:
    """The layout of what lies at ``path``, and where it begins."""
    name = os.fspath(path)
    # an absolute path is never the name of a bundled set
    place = Path(name).absolute() if os.sep in name else Path(name)
    try:
        return _recognized(place)
    except OSError as error:
        raise UnreadableData(f"{place} cannot be read: {error.strerror}") from error


def load_images(paths: Sequence[str | os.PathLike[str]], shape: tuple[int, int, int]) -> tuple[Samples, dict[int, str]]:
    """Read image files one by one, as a model wants them.

    Args:
        paths: of PNG, JPEG, PPM, BMP, WEBP or GIF files.
        shape: (C, H, W) of the model.

    Returns:
        The images that can be read, their positions in ``paths`` as ids; and why the others cannot, by position.
    """
    images, positions, failures = [torch.zeros(0, *shape, dtype=torch.uint8)], [], {}
    for position, name in enumerate(paths):
        path = Path(name).absolute()
        try:
            pixels, _ = decode(Picture(path.resolve()), path.resolve().parent, shape)
        except UnreadableData as error:
            failures[position] = str(error)
        else:
            images.append(torch.from_numpy(pixels.copy())[None])
            positions.append(position)
    return Samples(images=torch.cat(images), ids=torch.tensor(positions, dtype=torch.int64)), failures


def _recognized(path: Path) -> tuple[Layout, Path]:
    """The first layout that recognizes ``path``, or what it wraps, and where it does."""
    known = layouts()
    place = path
    for _ in range(_DEEPEST_WRAPPING):
        layout = next((layout for layout in known if layout.recognizes(place)), None)
        if layout is not None:
            return layout, place
        inner = _only_entry(place)
        if inner is None:
            break
        place = inner
    if not path.exists():
        raise UnreadableData(f"{path} does not exist; {_understood(known)}")
    raise UnreadableData(f"{path} {_contents(path)}, which is no layout that goodnet reads; {_understood(known)}")


def _only_entry(path: Path) -> Path | None:
    """The only folder in a folder, or its only file where it has no folder; links are not followed."""
    if not path.is_dir():
        return None
    with os.scandir(path) as scanned:
        entries = [entry for entry in scanned if not entry.name.startswith(".") and not entry.is_symlink()]
    folders = [entry for entry in entries if entry.is_dir()]
    only = folders or entries
    return Path(only[0]) if len(only) == 1 else None


def _contents(path: Path) -> str:
    if not path.is_dir():
        return "is a file"
    names = sorted(os.listdir(path))
    return f"holds {', '.join(map(repr, names[:6]))}{' ...' if len(names) > 6 else ''}" if names else "is empty"


def _understood(known: tuple[Layout, ...]) -> str:
    lines = [f"- {layout.description}{f' ({layout.where})' if layout.where else ''}" for layout in known]
    return "\n".join(["what can be loaded:", *lines])
