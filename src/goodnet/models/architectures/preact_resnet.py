"""PreActResNet-18, the network of most backdoor benchmarks."""

import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.models.architectures._base import Architecture, ImageShape, register


class _Block(nn.Module):
    """BatchNorm, ReLU, convolution, twice, beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        active = F.relu(self.bn1(maps))
        beside = maps if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + beside


@register("preact_resnet18", input_shape=(3, 32, 32))
class PreActResNet18(Architecture):
    """Four groups of two blocks; parameter names as in BackdoorBench and its ancestors.

    Source: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016. No BatchNorm after the last block,
    as in the public code that all use.
    """

    def __init__(self, *, num_classes: int, input_shape: ImageShape, width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(_Block(width, width, 1), _Block(width, width, 1))
        self.layer2 = nn.Sequential(_Block(width, 2 * width, 2), _Block(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(_Block(2 * width, 4 * width, 2), _Block(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(_Block(4 * width, 8 * width, 2), _Block(8 * width, 8 * width, 1))
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv1(images)
        for group in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = group(maps)
        logits: Tensor = self.linear(maps.mean((2, 3)))
        return logits
