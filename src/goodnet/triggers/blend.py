"""A whole image mixed in (Chen et al., Targeted backdoor attacks on deep learning systems, 2017)."""

from torch import Tensor


def blend(images: Tensor, pattern: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) * images + alpha * pattern, with ``pattern`` (C, H, W) in [0, 1]."""
    return images + alpha * (pattern.to(images) - images)
