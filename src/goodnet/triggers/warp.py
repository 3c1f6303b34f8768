"""A smooth, hardly visible warp of the image (Nguyen and Tran, WaNet, ICLR 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def warping_grid(height: int, width: int, *, control: int, strength: float, generator: torch.Generator) -> Tensor:
    """A sampling grid (1, H, W, 2) in [-1, 1]: the identity plus a random field on ``control`` x ``control`` points.

    The field is uniform, divided by its mean absolute value, upsampled bicubically and scaled by strength / H.
    """
    field = torch.rand(1, 2, control, control, generator=generator) * 2 - 1
    field = field / field.abs().mean()
    field = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    identity = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)[None]
    return (identity + strength * field / height).clamp(-1, 1)


def warp(images: Tensor, grid: Tensor) -> Tensor:
    """The images (N, C, H, W) sampled at ``grid`` (1, H, W, 2), bilinearly."""
    return F.grid_sample(images, grid.to(images).expand(len(images), -1, -1, -1), align_corners=True)
