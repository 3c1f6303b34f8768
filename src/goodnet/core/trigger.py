"""Trigger: what somebody who does not know the attacker's trigger has reconstructed of it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A reconstructed trigger: stamped = (1 - mask) * image + mask * pattern.

    One that looks otherwise on each image overrides ``stamp``; its mask and pattern are then the mean over images.

    Attributes:
        target: the label that stamped images are given.
        mask: float32 (H, W) in [0, 1].
        pattern: float32 (C, H, W) in [0, 1].
        success_rate: share of held-out images, not already answered as the target, that the trigger sends to it.
        count: how many held-out images that share is of.
    """

    target: int
    mask: Tensor
    pattern: Tensor
    success_rate: float
    count: int

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (N, C, H, W) in [0, 1] with the trigger on them, on whatever device they are."""
        return images + self.mask.to(images) * (self.pattern.to(images) - images)
