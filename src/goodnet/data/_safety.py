"""Reading what strangers wrote: sizes are compared before memory is asked for, and broken files raise one thing."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from goodnet.errors import GoodnetError, UnreadableData

LARGE = 2**30  # bytes; from here on a set stays memory-mapped where its file allows it
MOST_IN_MEMORY = 16 * 2**30  # bytes that one set may take in memory
FREE_OF_SUSPICION = 256 * 2**20  # bytes; below that a high compression ratio harms nobody
HIGHEST_RATIO = 200  # images compress 1 to 20 times, a bomb 1,000 times and more


class Readable(Protocol):
    """A binary stream, of a file or out of an archive."""

    def read(self, size: int, /) -> bytes: ...


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Whatever a parser raises on a broken file becomes UnreadableData; its warnings are dropped."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except GoodnetError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UnreadableData(f"{path} cannot be read as {kind}: {reason}; it may be damaged or incomplete") from error


def check_declared(path: Path, shape: tuple[int, ...], itemsize: int, stored: int) -> None:
    """Refuse an array that is empty, or that could not honestly be packed into ``stored`` bytes of file.

    Call it before anything is allocated: a shape is only a few bytes that a stranger wrote.
    """
    if not shape or min(shape) < 1:
        raise UnreadableData(f"{path} declares an array of shape {shape}")
    declared = math.prod(shape) * itemsize
    stored = min(stored, path.stat().st_size)  # what the file says about its own packing may be a lie as well
    if declared > FREE_OF_SUSPICION and declared > HIGHEST_RATIO * stored:
        raise UnreadableData(
            f"{path} claims to hold {declared:,} bytes in {stored:,} bytes of file; no images compress like that"
        )


def check_memory(path: Path, size: int) -> None:
    """Refuse to hold ``size`` bytes of one data set in memory if that is more than MOST_IN_MEMORY."""
    if size > MOST_IN_MEMORY:
        raise UnreadableData(
            f"{path} would take {size / 2**30:,.1f} GiB of memory, at most {MOST_IN_MEMORY / 2**30:g} are allowed; "
            "pass a smaller limit (or a smaller shape)"
        )


def read_exactly(stream: Readable, size: int) -> NDArray[np.uint8]:
    """The next ``size`` bytes of a stream; check before that so many are allowed.

    Raises:
        EOFError: the stream ends early.
    """
    buffer = np.empty(size, np.uint8)
    filled = 0
    while filled < size:
        part = stream.read(min(size - filled, 2**20))
        if not part:
            raise EOFError(f"it ends after {filled:,} of {size:,} bytes")
        buffer[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    return buffer


def read_rest(stream: Readable, size: int) -> NDArray[np.uint8]:
    """The next ``size`` bytes of a stream, which must be its last: only its end shows whether the checksum is right."""
    content = read_exactly(stream, size)
    if stream.read(1):
        raise UnreadableData(f"there is more in it than the {size:,} bytes that it declares")
    return content
