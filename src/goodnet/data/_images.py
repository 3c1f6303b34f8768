"""Image files to one uint8 array: bounded, upright, one size; files that cannot be read are named and left out."""

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from goodnet.data._safety import check_memory
from goodnet.errors import UnreadableData

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".webp", ".gif"})
MOST_PIXELS = 64 * 10**6  # of one image; a classifier looks at far smaller ones

_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "WEBP", "GIF")  # the other decoders of Pillow never see a stranger's file
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_GRAY = ("1", "L", "LA", *_SIXTEEN_BIT)
_ORIENTATION = 0x0112  # the EXIF tag; 5 and above lie on their side
_NAMED = 5  # how many skipped files a note names


@dataclass(frozen=True)
class Picture:
    """An image file, and the part of it that counts: (left, top, right, bottom) in pixels, None for all of it."""

    path: Path
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Decoded:
    """What came out of a list of pictures.

    Attributes:
        images: uint8 (N, C, H, W).
        kept: for every image its position in the list that went in.
        notes: what was skipped, resized or dropped.
    """

    images: Tensor
    kept: NDArray[np.int64]
    notes: tuple[str, ...]


def decode_all(pictures: Sequence[Picture], root: Path, shape: tuple[int, int, int] | None = None) -> Decoded:
    """Decode ``pictures`` to one shape.

    EXIF orientation is applied, alpha is dropped (as nearly every training pipeline does), 16 bits become the upper 8,
    palettes and CMYK become RGB, a GIF is its first frame; sizes by antialiased bilinear resizing.

    Args:
        root: the folder that the files belong to; links that lead out of it are not followed.
        shape: (C, H, W); None for the most common size, with one channel if every image is gray and else three.

    Raises:
        UnreadableData: no picture can be read, or all together would not fit in memory.
    """
    skipped: dict[int, str] = {}
    notes: list[str] = []
    alphas = 0
    with warnings.catch_warnings():  # Pillow warns about odd metadata; the pixels are what counts
        warnings.simplefilter("ignore")
        if shape is None:
            shape, note = _most_common_shape(pictures, root, skipped)
            notes += note
        check_memory(root, len(pictures) * int(np.prod(shape)))
        images = np.empty((len(pictures) - len(skipped), *shape), np.uint8)
        kept: list[int] = []
        for index, picture in enumerate(pictures):
            if index in skipped:
                continue
            try:
                images[len(kept)], alpha = decode(picture, root, shape)
            except UnreadableData as error:
                skipped[index] = str(error)
            else:
                kept.append(index)
                alphas += alpha
    if not kept:
        raise UnreadableData(f"no image in {root} can be read: {_named(pictures, skipped)}")
    if skipped:
        notes.append(f"skipped {len(skipped)} of {len(pictures)} images: {_named(pictures, skipped)}")
    if alphas:
        notes.append(f"dropped the alpha channel of {alphas} images")
    return Decoded(torch.from_numpy(images[: len(kept)]), np.array(kept), tuple(notes))


def _named(pictures: Sequence[Picture], skipped: dict[int, str]) -> str:
    # repr, because a file name from a stranger may hold terminal escapes
    first = [f"{pictures[index].path.name!r} ({skipped[index]})" for index in sorted(skipped)[:_NAMED]]
    return ", ".join(first) + (f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else "")


def _most_common_shape(
    pictures: Sequence[Picture], root: Path, skipped: dict[int, str]
) -> tuple[tuple[int, int, int], list[str]]:
    """The shape that most pictures have, from their headers, and a note if some must be resized to it."""
    sizes: Counter[tuple[int, int]] = Counter()
    channels = 1
    for index, picture in enumerate(pictures):
        try:
            with _opened(picture, root) as image:
                lying = "exif" in image.info and image.getexif().get(_ORIENTATION, 1) >= 5
                sizes[image.size if lying else (image.height, image.width)] += 1
                channels = channels if image.mode in _GRAY else 3
        except UnreadableData as error:
            skipped[index] = str(error)
    if not sizes:
        raise UnreadableData(f"no image in {root} can be read: {_named(pictures, skipped)}")
    # of sizes that are equally common the larger, so that the answer does not depend on the order of the files
    (height, width), count = max(sizes.items(), key=lambda item: (item[1], item[0]))
    resized = sizes.total() - count
    note = f"resized {resized} of {sizes.total()} images to {height}x{width} (height x width), the most common size"
    return (channels, height, width), [note] if resized else []


@contextlib.contextmanager
def _opened(picture: Picture, root: Path) -> Iterator[Image.Image]:
    """The image with its header read; whatever goes wrong, also inside the block, is UnreadableData with the reason."""
    if not picture.path.is_file():
        raise UnreadableData("no such file")
    if picture.path.is_symlink() and not picture.path.resolve().is_relative_to(root.resolve()):
        raise UnreadableData("a link that leads out of the folder")
    with _bounded(picture.path, MOST_PIXELS) as image:
        yield image


@contextlib.contextmanager
def _bounded(source: Path | io.BytesIO, most_pixels: int) -> Iterator[Image.Image]:
    """As ``_opened``, of a file or of bytes, with at most so many pixels."""
    try:
        with Image.open(source, formats=_FORMATS) as image:
            if image.width * image.height > most_pixels:
                raise UnreadableData(f"{image.width}x{image.height} pixels are too many")
            yield image
    except UnreadableData:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableData("not an image") from error
    except Exception as error:
        raise UnreadableData(str(error) or type(error).__name__) from error


def decode(picture: Picture, root: Path, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], bool]:
    """uint8 (C, H, W), and whether transparency was dropped."""
    with _opened(picture, root) as opened:
        image = ImageOps.exif_transpose(opened)
        alpha = image.has_transparency_data
        if picture.box is not None:
            left, top, right, bottom = picture.box
            if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
                raise UnreadableData(f"region of interest {picture.box} is not inside {image.width}x{image.height}")
            image = image.crop(picture.box)
        return _pixels(image, shape), alpha


def decode_bytes(content: bytes, shape: tuple[int, int, int], most_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """uint8 (C, H, W) of an image file that is in memory, treated as ``decode_all`` treats one.

    Raises:
        UnreadableData: it is no image, damaged, or has more pixels than ``most_pixels``.
    """
    with _bounded(io.BytesIO(content), most_pixels) as opened:
        return _pixels(ImageOps.exif_transpose(opened), shape)


def _pixels(image: Image.Image, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """uint8 (C, H, W) in the shape that is asked for."""
    channels, height, width = shape
    if image.mode == "F":
        raise UnreadableData("floating-point pixels of unknown range")
    if image.mode in _SIXTEEN_BIT:
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
