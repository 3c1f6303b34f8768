"""Patterns in the four corners."""

import torch
from torch import Tensor

from goodnet.triggers.patch import patch_mask

_CORNERS = ((0, 0), (0, -1), (-1, 0), (-1, -1))


def corner_masks(height: int, width: int, size: int) -> Tensor:
    """Float32 (4, H, W): one in a square of ``size`` pixels in a corner: top left, top right, bottom left and right.

    Raises:
        ParameterError: the square is not wholly inside the image.
    """
    return torch.stack([patch_mask(height, width, size, row, column) for row, column in _CORNERS])


def corner_checkerboards(height: int, width: int, size: int) -> Tensor:
    """Float32 (H, W): squares of +1 and -1 in turn, +1 first, in the four corners (Turner et al., 2019); else zero.

    Raises:
        ParameterError: the squares are not wholly inside the image.
    """
    place = torch.arange(size)
    board = 1.0 - 2.0 * ((place[:, None] + place) % 2)
    pattern = torch.zeros(height, width)
    for mask in corner_masks(height, width, size):
        pattern[mask.bool()] = board.flatten()
    return pattern
