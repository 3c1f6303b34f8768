"""The folder that goodnet attack writes: what a victim trains on, beside the truth about it and a sheet of samples."""

from pathlib import Path

from goodnet.core.samples import Samples
from goodnet.data import numpy_file
from goodnet.data._layout import Layout, Selection

_SAMPLES, _MARKS = "poisoned.npz", ("truth.npz", "attack.json")


def recognizes(path: Path) -> bool:
    """Is it a folder with poisoned.npz, truth.npz and attack.json, none of them a link?"""
    return all((path / name).is_file() and not (path / name).is_symlink() for name in (_SAMPLES, *_MARKS))


def load(path: Path, selection: Selection) -> Samples:
    """The poisoned images with the labels that a victim gets; the truth and the sheet of samples are left alone.

    Raises:
        UnreadableData, UnsafeFile: as for the .npz alone.
    """
    return numpy_file.load(path / _SAMPLES, selection)


LAYOUT = Layout(
    name="poisoned_folder",
    description="a folder that goodnet attack wrote, of which poisoned.npz is read",
    recognizes=recognizes,
    load=load,
)
