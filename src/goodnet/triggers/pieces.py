"""A trigger in pieces, of which each image shows only some (Qi et al., Latent separability, ICLR 2023)."""

import torch
from torch import Tensor


def random_pieces(count: int, height: int, width: int, *, side: int, shown: int, generator: torch.Generator) -> Tensor:
    """Float32 (N, 1, H, W): one where an image shows the trigger, else zero.

    The picture is cut into ``side`` x ``side`` pieces of nearly equal size; each image shows ``shown`` random ones.
    """
    order = torch.rand(count, side * side, generator=generator).argsort(1)
    pieces = (order < shown).float().view(count, 1, side, side)
    rows, columns = torch.arange(height) * side // height, torch.arange(width) * side // width
    return pieces[:, :, rows][:, :, :, columns]
