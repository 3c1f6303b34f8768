"""A LeNet-sized network without BatchNorm, for digits and other small images."""

import math

from torch import Tensor, nn

from goodnet.models.architectures._base import Architecture, ImageShape, map_size, register


@register("small_cnn", input_shape=(1, 28, 28))
class SmallCnn(Architecture):
    """Two 5x5 convolutions, each with ReLU and average pooling, and two linear layers.

    Source: layout and parameter names of https://github.com/verazuo/badnets-pytorch (MIT); its softmax is left out.
    """

    def __init__(self, *, num_classes: int, input_shape: ImageShape, width: int = 16):
        super().__init__()
        flat = (2 * width, *map_size(lambda side: ((side - 4) // 2 - 4) // 2, input_shape))
        self.conv1 = nn.Sequential(nn.Conv2d(input_shape[0], width, 5), nn.ReLU(), nn.AvgPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(width, 2 * width, 5), nn.ReLU(), nn.AvgPool2d(2))
        self.fc1 = nn.Sequential(nn.Linear(math.prod(flat), 512), nn.ReLU())
        self.fc2 = nn.Sequential(nn.Linear(512, num_classes))
        self.flat_inputs = {"fc1.0": flat}

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv2(self.conv1(images))
        logits: Tensor = self.fc2(self.fc1(maps.flatten(1)))
        return logits
