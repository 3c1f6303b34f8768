"""A small network that makes a trigger for each image."""

import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.attacks._base import Attack
from goodnet.attacks._learned import learned, restore
from goodnet.core.rng import isolated_rng

_HALVINGS = 3


class Generator(nn.Module):
    """An encoder and decoder, images (N, C, H, W) → maps float32 (N, ``outputs``, H, W), for sides of 8 pixels or more.

    Source: the layout of Nguyen and Tran, Input-aware dynamic backdoor attack, NeurIPS 2020; ``width`` filters in the
    first block, twice as many after each halving.
    """

    def __init__(self, channels: int, outputs: int, width: int):
        super().__init__()
        widths = [width * 2**halving for halving in range(_HALVINGS)]
        self.down = nn.ModuleList(
            nn.Sequential(*_block(source, filters), *_block(filters, filters))
            for source, filters in zip([channels, *widths], widths, strict=False)
        )
        self.middle = nn.Sequential(*_block(widths[-1], widths[-1]))
        self.up = nn.ModuleList(
            nn.Sequential(*_block(source, source), *_block(source, filters))
            for source, filters in zip(widths[::-1], [*widths[-2::-1], width], strict=True)
        )
        self.last = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        maps, sizes = images, []
        for block in self.down:
            sizes.append(maps.shape[2:])
            maps = F.max_pool2d(block(maps), 2)
        maps = self.middle(maps)
        for block, size in zip(self.up, reversed(sizes), strict=True):
            maps = block(F.interpolate(maps, size=size, mode="bilinear", align_corners=False))
        out: Tensor = self.last(maps)
        return out.float()


def _block(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()


def learned_generator(attack: Attack, prefix: str, images: Tensor, outputs: int, width: int) -> Generator:
    """The generator that ``attack`` has learned for images like these (N, C, H, W), fixed and in eval mode.

    Raises:
        NotHeld: it has learned none.
        ParameterError: what it has learned does not fit.
    """
    learned(attack, f"{prefix}.last.weight")
    with isolated_rng(0):  # the weights drawn here are overwritten; the caller's random state stays
        net = Generator(images.shape[1], outputs, width)
    restore(net, attack.learned, prefix)
    return net.to(images.device).requires_grad_(False).eval()
