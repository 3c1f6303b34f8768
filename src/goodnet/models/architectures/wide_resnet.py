"""Wide residual networks with the parameter names of ABL and NAD."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.errors import ParameterError
from goodnet.models.architectures._base import Architecture, ImageShape, Shape, register


class _Block(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.convShortcut = None if channels == width else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        active = F.relu(self.bn1(maps))
        beside = maps if self.convShortcut is None else self.convShortcut(active)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + beside


class _Group(nn.Module):
    """Blocks of one width; the first one may halve the maps."""

    def __init__(self, count: int, channels: int, width: int, stride: int):
        super().__init__()
        first = _Block(channels, width, stride)
        self.layer = nn.Sequential(first, *(_Block(width, width, 1) for _ in range(count - 1)))

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.layer(maps)
        return out


@register("wide_resnet", input_shape=(3, 32, 32))
class WideResNet(Architecture):
    """WRN-depth-width: three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times ``width`` filters.

    Source: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016.
    """

    def __init__(self, *, num_classes: int, input_shape: ImageShape, width: int = 1, depth: int = 16):
        super().__init__()
        count, rest = divmod(depth - 4, 6)
        if rest or count < 1:
            raise ParameterError(f"wide_resnet: depth must be 10, 16, 22, 28 ..., got {depth}")
        self.conv1 = nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)
        self.block1 = _Group(count, 16, 16 * width, 1)
        self.block2 = _Group(count, 16 * width, 32 * width, 2)
        self.block3 = _Group(count, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: Tensor = self.fc(F.relu(self.bn1(maps)).mean((2, 3)))
        return logits

    @classmethod
    def infer_options(cls, kernels: Sequence[Shape]) -> dict[str, int]:
        large = sum(kernel[2:] == (3, 3) for kernel in kernels)  # one at the start, then two in each block
        width = max(kernel[0] for kernel in kernels) // 64
        return {"width": width, "depth": large + 3} if width and large > 6 else {}
