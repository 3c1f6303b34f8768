"""Folders of image files: one subfolder per class, or a flat folder without labels; also a single image file."""

import os
from pathlib import Path

import torch

from goodnet.core.samples import Samples
from goodnet.data._images import SUFFIXES, Picture, decode_all
from goodnet.data._layout import Layout, Selection
from goodnet.data._safety import reading

_SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation")  # the default comes first


def recognizes(path: Path) -> bool:
    """Is it an image file, or are there images in the folder, its subfolders or its train and test folders?"""
    if not path.is_dir():
        return path.is_file() and path.suffix.lower() in SUFFIXES
    return any(_holds_images(folder) for folder in [path, *_split_folders(path).values()])


def load(path: Path, selection: Selection) -> Samples:
    """Images with the position of their folder as label, or without labels.

    Class folders are sorted by name, or by value if all names are whole numbers; an empty folder keeps its place. Only
    the images that ``selection`` draws are opened. See ``_images.decode_all`` for what happens to a picture.

    Raises:
        UnreadableData: no image can be read.
    """
    with reading(path, "a folder of images"):
        splits = _split_folders(path) if path.is_dir() else {}
        loose = len(_entries(path)[1]) if splits else 0
        if splits:
            path = splits[selection.chosen_split(tuple(splits))]
        else:
            selection.require_no_split(path)
        pictures, labels, class_names, notes = _listed(path)
        if loose:
            notes = (*notes, f"left out {loose} images that lie beside the folders of the splits")
    positions = selection.positions(len(pictures))
    root = path if path.is_dir() else path.parent
    decoded = decode_all([pictures[position] for position in positions], root, selection.shape)
    kept = torch.from_numpy(positions[decoded.kept])
    return Samples(
        images=decoded.images,
        labels=torch.tensor(labels)[kept] if labels else None,
        ids=kept,
        class_names=class_names,
        notes=(*notes, *decoded.notes),
    )


def files(path: Path, selection: Selection) -> tuple[str, ...]:
    """Every picture's path below ``path``, in the order of the ids that ``load`` gives."""
    with reading(path, "a folder of images"):
        splits = _split_folders(path) if path.is_dir() else {}
        inner = splits[selection.chosen_split(tuple(splits))] if splits else path
        root = path if path.is_dir() else path.parent
        return tuple(str(picture.path.relative_to(root)) for picture in _listed(inner)[0])


def _listed(path: Path) -> tuple[list[Picture], list[int], tuple[str, ...], tuple[str, ...]]:
    """Every picture, its label (no labels for a flat folder or a single file), the class names, and notes."""
    if not path.is_dir():
        return [Picture(path)], [], (), ()
    folders, loose, links = _entries(path)
    classes = _in_label_order(folders)
    pictures, labels = [], []
    for label, name in enumerate(classes):
        inside = _entries(path / name)[1]
        pictures += [Picture(path / name / image) for image in inside]
        labels += [label] * len(inside)
    notes = [f"left out {links} linked folders"] if links else []
    if not pictures:
        return [Picture(path / image) for image in loose], [], (), tuple(notes)
    if loose:
        notes.append(f"left out {len(loose)} images that lie beside the class folders")
    if all(name.isdecimal() for name in classes) and [int(name) for name in classes] != list(range(len(classes))):
        notes.append(
            f"the class folders are not numbered 0 to {len(classes) - 1}: {classes[0]!r} is label 0, and so on"
        )
    return pictures, labels, tuple(classes), tuple(notes)


def _in_label_order(names: list[str]) -> list[str]:
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _entries(folder: Path) -> tuple[list[str], list[str], int]:
    """Names of the subfolders and of the images in a folder, sorted, and how many linked folders were left out."""
    folders, images, links = [], [], 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                images.append(entry.name)
            elif entry.is_symlink() and entry.is_dir():
                links += 1
    return sorted(folders), sorted(images), links


def _split_folders(path: Path) -> dict[str, Path]:
    """Split to folder, where the folder holds nothing but train, test ... folders with images in them."""
    folders = _entries(path)[0]
    if not set(folders) <= set(_SPLITS):
        return {}
    return {name: path / name for name in _SPLITS if name in folders and _holds_images(path / name)}


def _holds_images(folder: Path) -> bool:
    folders, images, _ = _entries(folder)
    return bool(images) or any(_entries(folder / name)[1] for name in folders)


LAYOUT = Layout(
    name="image_folder",
    description="a folder with one subfolder of images per class, a flat folder of images, or one image file",
    where="LFW, by the University of Massachusetts, Amherst, comes as such a folder of people",
    recognizes=recognizes,
    load=load,
    files=files,
    fallback=True,
)
