"""The six-convolution network of the GTSRB backdoor literature."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.models.architectures._base import Architecture, ImageShape, map_size, register


@register("gtsrb_cnn", input_shape=(3, 32, 32))
class GtsrbCnn(Architecture):
    """Two 3x3 convolutions and a pooling, three times with 32, 64 and 128 filters; one hidden layer of 512.

    Source: the traffic sign network of Wang et al., "Neural Cleanse", IEEE S&P 2019.
    """

    def __init__(self, *, num_classes: int, input_shape: ImageShape, width: int = 32):
        super().__init__()
        flat = (4 * width, *map_size(lambda side: side // 8, input_shape))
        self.conv_1 = nn.Conv2d(input_shape[0], width, 3, padding=1)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_3 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv_4 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.conv_5 = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.conv_6 = nn.Conv2d(4 * width, 4 * width, 3, padding=1)
        self.fc_1 = nn.Linear(math.prod(flat), 512)
        self.output = nn.Linear(512, num_classes)
        self.flat_inputs = {"fc_1": flat}
        self.dropout_maps = nn.Dropout(0.2)
        self.dropout_features = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        pairs = ((self.conv_1, self.conv_2), (self.conv_3, self.conv_4), (self.conv_5, self.conv_6))
        for first, second in pairs:
            maps = F.relu(second(F.relu(first(maps))))
            maps = self.dropout_maps(F.max_pool2d(maps, 2))
        features = self.dropout_features(F.relu(self.fc_1(maps.flatten(1))))  # (N, 512)
        logits: Tensor = self.output(features)
        return logits
