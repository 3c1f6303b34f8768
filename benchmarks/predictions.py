"""How long core.classifier.predictions takes on one CPU thread, by batch size: python benchmarks/predictions.py.

Two small networks on 2,000 random images, best of three. The answers do not depend on the batch size.
"""

import time

import torch

from goodnet.core.classifier import predictions
from goodnet.core.samples import Samples
from goodnet.models.untrained import untrained

_NETWORKS = {"deepid": (3, 55, 47), "gtsrb_cnn": (3, 32, 32)}
_SIZES = (64, 128, 512)
_IMAGES, _REPEATS = 2000, 3


def main() -> None:
    torch.set_num_threads(1)
    for name, shape in _NETWORKS.items():
        images = torch.randint(256, (_IMAGES, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        model = untrained(name, Samples(images=images, labels=torch.arange(_IMAGES) % 43))
        for size in _SIZES:
            print(f"{name:10} batches of {size:3}: {min(_seconds(model, images, size) for _ in range(_REPEATS)):.2f} s")


def _seconds(model: torch.nn.Module, images: torch.Tensor, size: int) -> float:
    started = time.perf_counter()
    predictions(model, images, size)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
