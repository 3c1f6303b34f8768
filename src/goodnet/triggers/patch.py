"""Solid squares and scattered pixels: the BadNets sticker."""

import torch
from torch import Tensor

from goodnet.errors import ParameterError


def top_left(height: int, width: int, rows: int, columns: int, row: int, column: int) -> tuple[int, int]:
    """Where a trigger of ``rows`` x ``columns`` pixels begins in an image of ``height`` x ``width``.

    Negative rows and columns count from the far edge: -1 puts the trigger's last pixel on the last row.

    Raises:
        ParameterError: the trigger is not wholly inside the image.
    """
    top = row if row >= 0 else height - rows + row + 1
    left = column if column >= 0 else width - columns + column + 1
    if top < 0 or left < 0 or top + rows > height or left + columns > width:
        raise ParameterError(
            f"a trigger of {rows}x{columns} pixels at row {row}, column {column} leaves a {height}x{width} image"
        )
    return top, left


def patch_mask(height: int, width: int, size: int, row: int, column: int) -> Tensor:
    """Float32 (H, W): one inside the square of ``size`` pixels whose top left corner is (row, column), else zero.

    Negative rows and columns count from the far edge: -1 puts the square's last pixel on the last row.

    Raises:
        ParameterError: the square is not wholly inside the image.
    """
    top, left = top_left(height, width, size, size, row, column)
    mask = torch.zeros(height, width)
    mask[top : top + size, left : left + size] = 1
    return mask


def four_pixels(square: Tensor) -> Tensor:
    """The mask (H, W) of a 3x3 square thinned to the four pixels of the pattern of the BadNets paper."""
    top, left = (int(place) for place in square.nonzero()[0])
    mask = torch.zeros_like(square)
    for row, column in ((0, 2), (1, 1), (2, 0), (2, 2)):
        mask[top + row, left + column] = 1
    return mask


def solid_patch(images: Tensor, mask: Tensor, color: tuple[float, ...]) -> Tensor:
    """The images with ``color`` (one value per channel, or one for all) where ``mask``, (H, W) or (N, 1, H, W), is one.

    Raises:
        ParameterError: the number of colors is neither one nor that of the channels.
    """
    if len(color) not in (1, images.shape[1]):
        raise ParameterError(f"color has {len(color)} values; give one, or one for each of {images.shape[1]} channels")
    paint = images.new_tensor(color).view(1, -1, 1, 1)
    return images + mask.to(images) * (paint - images)
