"""What can be served, and reading it from a folder."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from goodnet.errors import UsageError
from goodnet.guard.files import DESCRIPTION, is_goodnet, load_goodnet


class Judged(Protocol):
    """What a guard says about M images; see ``goodnet.guard.goodnet.Judgement``."""

    @property
    def answers(self) -> Tensor:
        """int64 (M,): 0..N-1, or N for "this input carries a trigger"."""

    @property
    def suspicion(self) -> Tensor:
        """(M,); larger is more suspicious."""

    @property
    def confidence(self) -> Tensor:
        """(M,) in [0, 1]."""


class Judging(Protocol):
    """Anything that answers pictures with a class or N; a ``GoodNet`` is one."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    @property
    def num_classes(self) -> int:
        """N."""

    def judge(self, images: Tensor) -> Judged:
        """Judge uint8 images (M, C, H, W), each by itself."""


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
    """Read what ``goodnet repair`` or ``save_goodnet`` wrote.

    Raises:
        UsageError: it is a model that never answers N, or takes no pictures of one or three channels.
        UnreadableModel: it is damaged.
        UnsafeFile: it would execute something when loaded the usual way.
    """
    folder = Path(folder).absolute()
    place = folder / "goodnet" if is_goodnet(folder / "goodnet") else folder
    if not is_goodnet(place):
        raise UsageError(
            f"{folder} holds no {DESCRIPTION}: only a guarded model answers N for a trigger. Make one with "
            f"goodnet repair FILE --data PATH --out DIR, and serve DIR"
        )
    model = load_goodnet(place)
    if model.input_shape[0] not in (1, 3):
        raise UsageError(f"{folder} takes pictures of {model.input_shape[0]} channels; 1 and 3 can be served")
    return Served(model, folder, _version(place), model.badnet.class_names)


def _version(place: Path) -> str:
    """12 hexadecimal digits of the sha256 of all its files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(place)}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()[:12]
