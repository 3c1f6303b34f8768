"""What a file layout is, how the layouts are found, and which part of a data set is wanted."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goodnet.core.registry import unknown_name
from goodnet.core.samples import Samples
from goodnet.errors import ParameterError, UnknownName, UsageError

LONGEST_SIDE = 4096  # pixels; a shape beyond it is a slip of the pen


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which part of a data set is wanted.

    Attributes:
        split: "train", "test" ...; None for the first split that the set has.
        limit: at most that many images, drawn at random; None for all.
        seed: of that draw.
        shape: (C, H, W) that the images will be fitted to, so that a layout can decode straight to it; None to keep
            the layout's own.
    """

    split: str | None = None
    limit: int | None = None
    seed: int = 0
    shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ParameterError(f"limit must be at least 1, got {self.limit}; leave it out for all images")
        if self.seed < 0:
            raise ParameterError(f"seed must not be negative, got {self.seed}")
        if self.shape is not None and (
            len(self.shape) != 3 or self.shape[0] not in (1, 3) or not all(1 <= n <= LONGEST_SIDE for n in self.shape)
        ):
            raise ParameterError(
                f"shape must be (channels, height, width) with 1 or 3 channels and sides up to {LONGEST_SIDE}, "
                f"got {self.shape}"
            )

    def positions(self, count: int) -> NDArray[np.int64]:
        """Which of ``count`` images are wanted, ascending: the same for the same seed, limit and count."""
        if self.limit is None or self.limit >= count:
            return np.arange(count)
        return np.sort(np.random.default_rng(self.seed).choice(count, self.limit, replace=False))

    def chosen_split(self, splits: tuple[str, ...]) -> str:
        """The split wanted among those that the set has; the first one where none was asked for.

        Raises:
            UnknownName: the set has no split of this name.
        """
        if self.split is None:
            return splits[0]
        if self.split not in splits:
            raise UnknownName(unknown_name("split", self.split, splits))
        return self.split

    def require_no_split(self, path: Path) -> None:
        """Raise UsageError if a split was asked for: the set at ``path`` has none."""
        if self.split is not None:
            raise UsageError(f"{path} is not divided into splits; leave out split={self.split!r}")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which people keep images on disk; a public module of this folder holds it as ``LAYOUT``.

    Attributes:
        name: short, unique.
        description: what lies where, in one line.
        where: who publishes such sets, in words; "" where anybody may.
        recognizes: is this path laid out so? Looks at names and first bytes only.
        load: reads the wanted part; may raise anything of goodnet.errors and nothing else.
        files: names of the image files by id, relative to the path; None where images are no files of their own.
        fallback: tried only after all others said no.
    """

    name: str
    description: str
    where: str = ""
    recognizes: Callable[[Path], bool]
    load: Callable[[Path, Selection], Samples]
    files: Callable[[Path, Selection], tuple[str, ...]] | None = None
    fallback: bool = False


def layouts() -> tuple[Layout, ...]:
    """Every layout in this folder, in the order in which they are tried."""
    package = importlib.import_module(__package__)
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")]
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names]
    found: list[Layout] = [module.LAYOUT for module in modules if hasattr(module, "LAYOUT")]
    return tuple(sorted(found, key=lambda layout: (layout.fallback, layout.name)))
