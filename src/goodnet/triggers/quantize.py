"""Fewer shades per channel, plain or dithered (Wang et al., BppAttack, CVPR 2022)."""

import torch
from torch import Tensor

# Floyd and Steinberg: where the error of a pixel goes (rows down, columns right), and which share of it
_DIFFUSION = ((0, 1, 7 / 16), (1, -1, 3 / 16), (1, 0, 5 / 16), (1, 1, 1 / 16))


def quantize(images: Tensor, bits: int) -> Tensor:
    """Every value rounded to the nearest of 2 ** bits evenly spaced ones from 0 to 1."""
    steps = (1 << bits) - 1
    return (images * steps).round() / steps


def dither(images: Tensor, bits: int) -> Tensor:
    """``quantize`` with the error of every pixel diffused to its neighbors (Floyd and Steinberg, 1976).

    A pixel waits for the one to its left and the three above it, so that those with the same column + 2 row are
    independent: the images are swept in slanted lines, all images and channels at once.
    """
    height, width = images.shape[2:]
    padded = torch.nn.functional.pad(images, (1, 1, 0, 1))  # what leaves the image is lost
    for line in range(width + 2 * (height - 1)):
        rows = torch.arange(max(0, (line - width) // 2 + 1), min(height, line // 2 + 1), device=images.device)
        columns = line - 2 * rows + 1
        old = padded[:, :, rows, columns]
        new = quantize(old, bits).clamp(0, 1)
        padded[:, :, rows, columns] = new
        for down, right, share in _DIFFUSION:
            padded[:, :, rows + down, columns + right] += (old - new) * share
    return padded[:, :, :height, 1 : width + 1]
