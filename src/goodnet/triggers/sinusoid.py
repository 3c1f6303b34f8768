"""A sinusoidal signal over the columns (Barni et al., A new backdoor attack in CNNs, ICIP 2019)."""

import math

import torch
from torch import Tensor


def sinusoid(images: Tensor, amplitude: float, frequency: float) -> Tensor:
    """images + amplitude * sin(2 pi column frequency / W), clipped to [0, 1]; ``amplitude`` in units of [0, 1]."""
    width = images.shape[-1]
    wave = torch.sin(2 * math.pi * frequency * torch.arange(width, device=images.device) / width)
    return (images + amplitude * wave).clamp(0, 1)
