"""Randomness is an argument: seeds go in, the caller's generators come out untouched."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def isolated_rng(seed: int) -> Iterator[torch.Generator]:
    """Seed every global generator inside the block, put the caller's states back after it, also after an exception.

    Yields a CPU ``torch.Generator`` seeded with ``seed``; methods draw from it and from nothing else.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield torch.Generator().manual_seed(seed)
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
