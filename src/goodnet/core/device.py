"""check_device: whether torch can compute there."""

import torch

from goodnet.errors import UsageError


def check_device(device: str) -> None:
    """Raise UsageError if torch has no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # torch without CUDA asserts
        raise UsageError(
            f"no device {device!r} here; use 'cpu', or 'cuda' with a CUDA build of torch and a GPU"
        ) from None
