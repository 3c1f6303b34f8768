"""Pictures from files as triggers: bounded reading, scaling, and pasting with their transparency."""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from goodnet.errors import GoodnetError, ParameterError, UnreadableData
from goodnet.triggers.blend import blend
from goodnet.triggers.patch import top_left

MOST_PIXELS = 16 * 10**6  # of a picture; a trigger is far smaller

_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "WEBP", "GIF")  # the other decoders of Pillow never see a stranger's file
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
_PIXELS = {".": (0, 0, 0, 0), "#": (0, 0, 0, 255), "o": (255, 255, 255, 255)}
_GLASSES = (  # white rims and dark lenses, to be seen on any background
    "oooooo...oooooo",
    "o####ooooo####o",
    "o####o...o####o",
    ".oooo.....oooo.",
)


def read_image(
    path: str | os.PathLike[str], channels: int, height: int | None = None, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """A picture file as a pattern (C, H, W) and its opacity (H, W), float32 in [0, 1]; both are one pixel at least.

    Args:
        path: PNG, JPEG, PPM, BMP, WebP or GIF (its first frame).
        channels: 1 (color becomes ITU-R 601 luma) or 3.
        height, width: pixels to scale to, antialiased; None for the picture's own, or in proportion to the other one.

    Raises:
        UnreadableData: no such file, no picture, a damaged one, or one of more than MOST_PIXELS.
        ParameterError: another number of channels, or too large a size to scale to.
    """
    try:
        if not Path(path).is_file():
            raise UnreadableData("no such file")
        with warnings.catch_warnings():  # Pillow warns about odd metadata; the pixels are what counts
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:  # known from the header, before anything is decoded
                    raise UnreadableData(f"{image.width}x{image.height} pixels are too many")
                picture = image.convert("RGBA")
    except Exception as error:
        reason = error if isinstance(error, GoodnetError) else str(error) or type(error).__name__
        raise UnreadableData(f"{os.fspath(path)!r} cannot be read as a picture: {reason}") from error
    return _tensors(picture, channels, height, width)


def glasses(channels: int, height: int | None = None, width: int | None = None) -> tuple[Tensor, Tensor]:
    """A drawn pair of glasses, 4x15 pixels where no size is asked for; returns and errors as ``read_image``."""
    pixels = np.array([[_PIXELS[pixel] for pixel in row] for row in _GLASSES], np.uint8)
    return _tensors(Image.fromarray(pixels), channels, height, width)


def _tensors(picture: Image.Image, channels: int, height: int | None, width: int | None) -> tuple[Tensor, Tensor]:
    """``read_image`` after decoding."""
    if channels not in (1, 3):
        raise ParameterError(f"a picture can be put on images of 1 or 3 channels, these have {channels}")
    rows = height or (max(1, round(width * picture.height / picture.width)) if width else picture.height)
    columns = width or (max(1, round(height * picture.width / picture.height)) if height else picture.width)
    if rows * columns > MOST_PIXELS:
        raise ParameterError(f"a trigger of {rows}x{columns} pixels is too large; lower its height or width")
    # Pillow weighs colors with their opacity when it resizes, so that hidden ones do not bleed in
    if (columns, rows) != picture.size:
        picture = picture.resize((columns, rows), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    color, opacity = values[:3], values[3]
    if channels == 1:
        color = (color * torch.tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    return color, opacity


def paste(images: Tensor, pattern: Tensor, opacity: Tensor, row: int, column: int) -> Tensor:
    """The images with ``pattern`` (C, h, w) over them, as opaque as ``opacity`` (h, w) in [0, 1].

    Its top left corner comes to (row, column); negative ones count from the far edge, as in ``patch_mask``.

    Raises:
        ParameterError: the pattern is not wholly inside the images.
    """
    rows, columns = opacity.shape
    top, left = top_left(images.shape[2], images.shape[3], rows, columns, row, column)
    pasted = images.clone()
    place = pasted[:, :, top : top + rows, left : left + columns]
    place.copy_(blend(place, pattern, opacity))
    return pasted
