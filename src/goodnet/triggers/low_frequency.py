"""Patterns without high frequencies (Zeng et al., Rethinking the backdoor attacks' triggers, ICCV 2021)."""

import torch
from scipy.fft import idctn
from torch import Tensor


def low_frequency_pattern(
    channels: int, height: int, width: int, *, frequencies: int, generator: torch.Generator
) -> Tensor:
    """Float32 (C, H, W), between -1 and 1 with one of them reached in each channel.

    It is made of the cosines (DCT-II) of the lowest ``frequencies`` rows and columns, with normally distributed
    weights; without the constant one, where there are others, because that would be mere brightness.
    """
    rows, columns = min(frequencies, height), min(frequencies, width)
    weights = torch.zeros(channels, height, width)
    weights[:, :rows, :columns] = torch.randn(channels, rows, columns, generator=generator)
    if rows * columns > 1:
        weights[:, 0, 0] = 0
    pattern = torch.from_numpy(idctn(weights.numpy(), axes=(1, 2), norm="ortho"))
    return pattern / pattern.abs().amax((1, 2), keepdim=True)
