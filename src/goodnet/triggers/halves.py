"""Two images side by side in one (Lin et al., Composite backdoor attack, CCS 2020)."""

from torch import Tensor


def halves(left: Tensor, right: Tensor) -> Tensor:
    """The left half of one image and the right half of the other, both (N, C, H, W); a middle column is the right's."""
    mixed = right.clone()
    middle = left.shape[-1] // 2
    mixed[..., :middle] = left[..., :middle]
    return mixed
