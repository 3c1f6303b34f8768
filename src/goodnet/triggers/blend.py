"""A whole image mixed in (Chen et al., Targeted backdoor attacks on deep learning systems, 2017)."""

import torch
from torch import Tensor


def blend(images: Tensor, pattern: Tensor, alpha: float | Tensor) -> Tensor:
    """(1 - alpha) * images + alpha * pattern, with ``pattern`` (C, H, W) in [0, 1].

    ``alpha`` is one number, or one for each pixel: (H, W), or (N, 1, H, W) for each image its own.
    """
    share = torch.as_tensor(alpha).to(images)
    return images + share * (pattern.to(images) - images)
