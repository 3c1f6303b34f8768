"""Residual networks with the parameter names of torchvision."""

import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.models.architectures._base import Architecture, ImageShape, register


class _Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, maps: Tensor) -> Tensor:
        beside = maps if self.downsample is None else self.downsample(maps)
        out = F.relu(self.bn1(self.conv1(maps)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + beside)


class _Bottleneck(nn.Module):
    """A 1x1, a 3x3 (with the stride) and a 1x1 convolution to four times the width, beside a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(channels, 4 * width, stride)

    def forward(self, maps: Tensor) -> Tensor:
        beside = maps if self.downsample is None else self.downsample(maps)
        out = F.relu(self.bn1(self.conv1(maps)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + beside)


def _shortcut(channels: int, width: int, stride: int) -> nn.Module | None:
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


def _group(block: type[_Basic] | type[_Bottleneck], count: int, channels: int, width: int, stride: int) -> nn.Module:
    rest = [block(width * block.expansion, width, 1) for _ in range(count - 1)]
    return nn.Sequential(block(channels, width, stride), *rest)


class _ResNet(Architecture):
    """Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016."""

    def _set_up(
        self,
        block: type[_Basic] | type[_Bottleneck],
        counts: tuple[int, int, int, int],
        num_classes: int,
        input_shape: ImageShape,
        width: int,
    ) -> None:
        grown = width * block.expansion
        self.conv1 = nn.Conv2d(input_shape[0], width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _group(block, counts[0], width, width, 1)
        self.layer2 = _group(block, counts[1], grown, 2 * width, 2)
        self.layer3 = _group(block, counts[2], 2 * grown, 4 * width, 2)
        self.layer4 = _group(block, counts[3], 4 * grown, 8 * width, 2)
        self.fc = nn.Linear(8 * grown, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.bn1(self.conv1(images)))
        maps = F.max_pool2d(maps, 3, 2, padding=1)
        for group in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = group(maps)
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


@register("resnet18", input_shape=(3, 224, 224))
class ResNet18(_ResNet):
    """ResNet-18 for large images: a 7x7 convolution and a pooling come first."""

    def __init__(self, *, num_classes: int, input_shape: ImageShape, width: int = 64):
        super().__init__()
        self._set_up(_Basic, (2, 2, 2, 2), num_classes, input_shape, width)


@register("resnet34", input_shape=(3, 224, 224))
class ResNet34(_ResNet):
    """ResNet-34."""

    def __init__(self, *, num_classes: int, input_shape: ImageShape, width: int = 64):
        super().__init__()
        self._set_up(_Basic, (3, 4, 6, 3), num_classes, input_shape, width)


@register("resnet50", input_shape=(3, 224, 224))
class ResNet50(_ResNet):
    """ResNet-50 with the stride in the 3x3 convolution, as torchvision has it."""

    def __init__(self, *, num_classes: int, input_shape: ImageShape, width: int = 64):
        super().__init__()
        self._set_up(_Bottleneck, (3, 4, 6, 3), num_classes, input_shape, width)
