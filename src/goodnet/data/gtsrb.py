"""GTSRB, the German Traffic Sign Recognition Benchmark, as published: frames, regions of interest, class ids in CSV."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from goodnet.core.samples import Samples
from goodnet.data._images import Picture, decode_all
from goodnet.data._layout import Layout, Selection
from goodnet.data._safety import reading
from goodnet.errors import UnreadableData

SHAPE = (3, 32, 32)  # the frames have all sizes from 15 to 250 pixels; public models take this one

_NAMES = (
    "speed limit 20,speed limit 30,speed limit 50,speed limit 60,speed limit 70,speed limit 80,"
    "end of speed limit 80,speed limit 100,speed limit 120,no passing,no passing for trucks,"
    "right of way at next crossing,priority road,yield,stop,no vehicles,no trucks,no entry,danger,"
    "curve to the left,curve to the right,double curve,bumpy road,slippery road,road narrows on the right,"
    "road work,traffic signals,pedestrians,children,bicycles,ice or snow,wild animals,end of all limits,"
    "turn right ahead,turn left ahead,ahead only,ahead or right,ahead or left,keep right,keep left,"
    "roundabout,end of no passing,end of no passing for trucks"
)
CLASS_NAMES = tuple(_NAMES.split(","))

_TRAINING_FOLDERS = ("Final_Training/Images", "Training", ".")
_TEST_FOLDERS = ("Final_Test/Images", ".")
_TEST_TABLES = ("GT-final_test.csv", "../GT-final_test.csv", "../../GT-final_test.csv", "../../../GT-final_test.csv")
_TRACK = re.compile(r"(\d+)_\d+\.\w+")  # frame 12 of track 0 is 00000_00012.ppm
_MOST_TABLE_BYTES = 64 * 2**20
_BOX = ("Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")


@dataclass(frozen=True)
class _Tables:
    """The CSV files of a split, and the folder of the frames that each lists."""

    csv_files: tuple[Path, ...]
    folders: tuple[Path, ...]


def recognizes(path: Path) -> bool:
    """Is it the folder GTSRB, its parent, or the folder with the frames of a split?"""
    return path.is_dir() and bool(_tables(path))


def load(path: Path, selection: Selection, *, crop: bool = True) -> Samples:
    """Frames cut to their region of interest and fitted to 32x32 if ``selection`` names no shape.

    Without the cut, public models trained on cut frames lose about a fifth of their accuracy. Class ids are those of
    the CSV files; the region is left and top inclusive, right and bottom exclusive.

    Frames for training come in tracks, about 30 pictures of one sign from one drive by; the track is their source.

    Source: Stallkamp et al., Man vs. computer, Neural Networks 2012.

    Args:
        crop: False keeps the whole frames; for callers in Python.

    Raises:
        UnreadableData: a damaged table, one that names files elsewhere, or no readable frame.
    """
    tables = _tables(path)
    split = selection.chosen_split(tuple(tables))
    pictures: list[Picture] = []
    labels: list[int] = []
    for table, folder in zip(tables[split].csv_files, tables[split].folders, strict=True):
        with reading(table, "a table of GTSRB frames"):
            if table.is_symlink() or not folder.resolve().is_relative_to(path.resolve()):
                raise UnreadableData(f"{table} is reached by a link that may lead out of {path}; pass its real folder")
            _read_table(table, folder, pictures, labels, crop)
    positions = selection.positions(len(pictures))
    decoded = decode_all([pictures[position] for position in positions], path, selection.shape or SHAPE)
    kept = torch.from_numpy(positions[decoded.kept])
    tracks = _tracks(pictures)
    note = "frames are cut to the region of interest" if crop else "frames are whole, with the border around the sign"
    return Samples(
        images=decoded.images,
        labels=torch.tensor(labels)[kept],
        ids=kept,
        sources=None if tracks is None else tracks[kept],
        class_names=CLASS_NAMES,
        notes=(note, *decoded.notes),
    )


def _tracks(pictures: list[Picture]) -> torch.Tensor | None:
    """The track of each picture, int64, counted over all folders; None where file names do not say it."""
    names = [(picture.path.parent, _TRACK.fullmatch(picture.path.name)) for picture in pictures]
    numbers: dict[tuple[Path, str], int] = {}
    tracks = [numbers.setdefault((folder, match[1]), len(numbers)) for folder, match in names if match is not None]
    return torch.tensor(tracks) if tracks and len(tracks) == len(pictures) else None


def _tables(path: Path) -> dict[str, _Tables]:
    """The tables of each split that is there, "train" first."""
    found: dict[str, _Tables] = {}
    for root in (path, path / "GTSRB"):
        for name in _TRAINING_FOLDERS:
            folders = sorted((root / name).glob("[0-9]*"))
            tables = tuple(table for folder in folders if (table := folder / f"GT-{folder.name}.csv").is_file())
            if tables and "train" not in found:
                found["train"] = _Tables(tables, tuple(table.parent for table in tables))
    for root in (path, path / "GTSRB"):
        for name in _TEST_FOLDERS:
            folder = root / name
            # beside the frames, or up to where the archive with the table was unpacked
            tables = tuple(table for up in _TEST_TABLES if (table := folder / up).is_file())
            if tables and "test" not in found and next(folder.glob("*.ppm"), None):
                found["test"] = _Tables(tables[:1], (folder,))
    return found


def _read_table(table: Path, folder: Path, pictures: list[Picture], labels: list[int], crop: bool) -> None:
    """Append the frames and the class ids that one CSV file lists."""
    if table.stat().st_size > _MOST_TABLE_BYTES:
        raise UnreadableData(f"{table} is larger than any table of GTSRB")
    with table.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter=";"):
            if "ClassId" not in row:
                raise UnreadableData(f"{table} has no column ClassId")
            name, label = row["Filename"], int(row["ClassId"])
            if not name or Path(name).name != name:
                raise UnreadableData(f"{table} names the file {name!r}, which is not in its folder")
            if not 0 <= label < len(CLASS_NAMES):
                raise UnreadableData(f"{table} has class {label}; GTSRB has 0 to {len(CLASS_NAMES) - 1}")
            left, top, right, bottom = (int(row[column]) for column in _BOX)
            pictures.append(Picture(folder / name, (left, top, right, bottom) if crop else None))
            labels.append(label)


LAYOUT = Layout(
    name="gtsrb",
    description="the folder GTSRB with Final_Training/Images/00000/GT-00000.csv, Final_Test/Images, GT-final_test.csv",
    where="GTSRB by the Institut für Neuroinformatik, Ruhr-Universität Bochum",
    recognizes=recognizes,
    load=load,
)
