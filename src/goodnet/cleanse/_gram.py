"""The arithmetic of Beatrix: Gram matrices of feature maps, and what lies outside their usual range."""

import torch
from torch import Tensor


def gram_entries(maps: Tensor, orders: int) -> Tensor:
    """Maps (N, C, ...) → upper triangles of the Gram matrices of orders 1, 2, ..., (N, orders * C (C + 1) / 2)."""
    values = maps.flatten(2) if maps.ndim > 2 else maps[:, :, None]
    rows, columns = torch.triu_indices(values.shape[1], values.shape[1], device=values.device)
    entries = []
    for order in range(1, orders + 1):
        powers = values.pow(order)
        gram = (powers @ powers.transpose(1, 2))[:, rows, columns]
        entries.append(gram.sign() * gram.abs().pow(1 / order))
    return torch.cat(entries, 1)


def usual_range(entries: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """(lowest, highest) usual value of each column: median -+ ``width`` median absolute deviations."""
    median = entries.median(0).values
    spread = (entries - median).abs().median(0).values
    return median - width * spread, median + width * spread


def deviation(entries: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(N,): mean over columns of how far a value lies outside its range, in units of the bound that it leaves.

    A bound near 0, of features that are hardly ever active, would make any activity count without limit: units are at
    least the mean size of all bounds.
    """
    smallest = torch.stack((low, high)).abs().mean().clamp_min(1e-12)
    below = (low - entries).clamp_min(0) / low.abs().clamp_min(smallest)
    above = (entries - high).clamp_min(0) / high.abs().clamp_min(smallest)
    return (below + above).mean(1)
