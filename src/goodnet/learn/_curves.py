"""Loss curves: how fast two populations of a training set were learned."""

from typing import Any

import torch
from torch import Tensor

_SHARES = (0.25, 0.5, 0.75)


def loss_curves(losses: Tensor, chosen: Tensor) -> dict[str, Any]:
    """Quartiles of the losses after each epoch, of the ``chosen`` samples and of the others, as JSON values.

    Args:
        losses: (epochs, N).
        chosen: bool (N,): what a method isolated, or what evaluation knows to be poisoned.
    """
    return {"isolated": _quartiles(losses[:, chosen]), "kept": _quartiles(losses[:, ~chosen])}


def _quartiles(losses: Tensor) -> dict[str, list[float]]:
    if not losses.shape[1]:
        return {"low": [], "median": [], "high": []}
    values = losses.double().quantile(torch.tensor(_SHARES, dtype=torch.float64), dim=1)
    return dict(zip(("low", "median", "high"), values.tolist(), strict=True))
