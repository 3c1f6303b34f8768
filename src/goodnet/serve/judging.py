"""What can be served, and reading it from a folder."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from goodnet.errors import UsageError
from goodnet.guard.files import judging_folder, load_judging
from goodnet.guard.fitted import Judging
from goodnet.guard.goodnet import GoodNet


@dataclass(frozen=True)
class Served:
    """What is served, under the name of its folder and of what lies there; equal files have an equal version."""

    model: Judging
    folder: Path
    version: str
    class_names: tuple[str, ...] = ()

    def name_of(self, answer: int) -> str | None:
        """The name of a class; None where it is not known, and for N."""
        return self.class_names[answer] if answer < len(self.class_names) else None


def load_served(folder: str | os.PathLike[str]) -> Served:
    """Read what ``goodnet repair``, ``goodnet guard fit`` or ``save_goodnet`` wrote.

    Raises:
        UsageError: it is a model that never answers N, or takes no pictures of one or three channels.
        UnreadableModel: it is damaged.
        UnsafeFile: it would execute something when loaded the usual way.
    """
    folder = Path(folder).absolute()
    place = judging_folder(folder)
    if place is None:
        raise UsageError(
            f"{folder} holds nothing that answers N for a trigger, as a model alone never does. Make one with goodnet "
            "repair FILE --data PATH --out DIR or goodnet guard fit FILE --data PATH --out DIR, and serve DIR"
        )
    model = load_judging(place)
    if model.input_shape[0] not in (1, 3):
        raise UsageError(f"{folder} takes pictures of {model.input_shape[0]} channels; 1 and 3 can be served")
    names = model.badnet.class_names if isinstance(model, GoodNet) else model.class_names
    return Served(model, folder, _version(place), names)


def _version(place: Path) -> str:
    """12 hexadecimal digits of the sha256 of all its files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(place)}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()[:12]
