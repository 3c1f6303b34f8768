"""The networks of an image-to-image translation, small enough for 28x28 to 64x64 pixels on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MASK_AT_FIRST = -2.0  # logit: an untrained generator changes a little everywhere
_RESIDUAL_BLOCKS = 2


class Generator(nn.Module):
    """Images (N, C, H, W) in [0, 1] → the same, with something laid over them: (1 - mask) * image + mask * pattern.

    Mask (N, 1, H, W) and pattern (N, C, H, W), both in [0, 1], are made for each image. So what is translated differs
    from the image only where the translation does something, and both can be looked at.

    Source: the encoder, residual blocks and decoder of Johnson et al., Perceptual losses, ECCV 2016, as CycleGAN uses
    them, with ``width`` filters at first; the mask is that of Mejjati et al., Unsupervised attention-guided
    image-to-image translation, NeurIPS 2018.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.first = _normed(nn.Conv2d(channels + 2, width, 5, padding=2))
        self.down = _normed(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1))
        self.middle = nn.ModuleList(
            _normed(nn.Conv2d(2 * width, 2 * width, 3, padding=1)) for _ in range(_RESIDUAL_BLOCKS)
        )
        self.up = _normed(nn.Conv2d(3 * width, width, 3, padding=1))
        self.last = nn.Conv2d(width, channels + 1, 3, padding=1)
        with torch.no_grad():
            assert self.last.bias is not None
            self.last.bias[-1] = _MASK_AT_FIRST

    def overlay(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mask and pattern for each image."""
        fine = self.first(with_places(images))
        maps = self.down(fine)
        for block in self.middle:
            maps = maps + block(maps)
        maps = torch.cat([F.interpolate(maps, fine.shape[2:], mode="nearest"), fine], 1)
        made = self.last(self.up(maps)).sigmoid()
        return made[:, -1:], made[:, :-1]

    def forward(self, images: Tensor) -> Tensor:
        mask, pattern = self.overlay(images)
        return images + mask * (pattern - images)


class Critic(nn.Module):
    """Images (N, C, H, W) → for every patch of some 18 pixels (N, 1, h, w): 1 for one of the wanted kind, 0 for a fake.

    Source: PatchGAN of Isola et al., Image-to-image translation with conditional adversarial networks, CVPR 2017.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 2, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.InstanceNorm2d(2 * width, affine=True),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        said: Tensor = self.layers(with_places(images))
        return said


def with_places(images: Tensor) -> Tensor:
    """The images with two channels more, row and column of each pixel from -1 to 1: triggers have their place.

    Source: Liu et al., An intriguing failing of convolutional neural networks and the CoordConv solution, NeurIPS 2018.
    """
    count, _, height, width = images.shape
    rows = torch.linspace(-1, 1, height, device=images.device).view(1, 1, -1, 1).expand(count, 1, height, width)
    columns = torch.linspace(-1, 1, width, device=images.device).view(1, 1, 1, -1).expand(count, 1, height, width)
    return torch.cat([images, rows, columns], 1)


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.InstanceNorm2d(convolution.out_channels, affine=True), nn.ReLU())
