"""A square whose pattern is optimized against a network."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from goodnet.attacks._base import Attack
from goodnet.attacks._learned import learned
from goodnet.core.samples import Samples
from goodnet.triggers import patch_mask

_BATCH = 32  # images in one step
_BETAS = (0.5, 0.9)  # Adam, as trigger inversion has it
_RATE = 0.1


def square_of(area: float, shape: tuple[int, int, int]) -> Tensor:
    """Float32 (H, W): a square of this share of the image (C, H, W), one pixel off the lower right corner."""
    height, width = shape[1:]
    size = round(math.sqrt(area * height * width))
    return patch_mask(height, width, max(1, min(size, height - 1, width - 1)), -2, -2)


def optimized_pattern(
    samples: Samples,
    mask: Tensor,
    objective: Callable[[Tensor], Tensor],
    *,
    steps: int,
    device: torch.device,
    generator: torch.Generator,
) -> Tensor:
    """The pattern (C, H, W) in [0, 1], at 8 bits, that makes ``objective`` of stamped images small.

    Args:
        samples: images that it is optimized on.
        mask: where the pattern is, (H, W).
        objective: float images (N, C, H, W) in [0, 1] with the pattern → the scalar to minimize.
        steps: updates by Adam, on 32 images each; the pattern starts at random.
        device: where the objective is computed.
        generator: draws the start and the images.
    """
    numbers = torch.randn(samples.shape, generator=generator).to(device).requires_grad_()
    optimizer = torch.optim.Adam([numbers], _RATE, betas=_BETAS)
    for _ in range(steps):
        chosen = torch.randint(len(samples), (_BATCH,), generator=generator)
        images = samples.images[chosen].to(device).float() / 255
        stamped = images + mask.to(device) * (numbers.sigmoid() - images)
        (numbers.grad,) = torch.autograd.grad(objective(stamped), numbers)
        optimizer.step()
    return (numbers.detach().sigmoid() * 255).round().cpu() / 255


def stamp_pattern(attack: Attack, images: Tensor) -> Tensor:
    """The images with the learned ``pattern`` where the learned ``mask`` is one.

    Raises:
        NotHeld: the attack has learned none.
    """
    mask, pattern = (learned(attack, name).to(images) for name in ("mask", "pattern"))
    return images + mask * (pattern - images)
