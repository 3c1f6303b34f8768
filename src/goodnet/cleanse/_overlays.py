"""What a model answers when other images are laid over an image: what STRIP over sets and at run time share."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions

_AT_ONCE = 1024  # blends in memory

BLENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda images, over: (images + over).clamp_(max=1),  # saturates at white, as 8-bit images do
    "average": lambda images, over: (images + over) / 2,
}


def entropies(model: Classifier, images: Tensor, over: Tensor, blend: str) -> Tensor:
    """Entropy in bits, over labels, of the answers to each of ``images`` (M) under each of ``over`` (N): (M, N).

    Args:
        model: in eval mode.
        images, over: floats in [0, 1], (M, C, H, W) and (N, C, H, W).
        blend: a name of ``BLENDS``.
    """
    mix, parts = BLENDS[blend], []
    for batch in images.split(max(1, _AT_ONCE // len(over))):
        rows = mix(batch[:, None], over[None]).flatten(0, 1)
        shares = predictions(model, rows.contiguous(memory_format=torch.channels_last)).softmax(1)  # twice as fast
        parts.append((torch.special.entr(shares).sum(1) / math.log(2)).view(len(batch), len(over)))
    return torch.cat(parts)
