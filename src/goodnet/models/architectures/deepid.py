"""DeepID for faces, as in the Fine-Pruning paper and the CSAW-HackML 2020 competition."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.models.architectures._base import Architecture, ImageShape, map_size, register


@register("deepid", input_shape=(3, 55, 47))
class DeepID(Architecture):
    """Three convolutions with pooling; two paths, one with a fourth convolution, meet before the last layer.

    Source: Sun, Wang, Tang, "Deep Learning Face Representation from Predicting 10,000 Classes", CVPR 2014; layer names
    as in https://github.com/csaw-hackml/CSAW-HackML-2020.
    """

    def __init__(self, *, num_classes: int, input_shape: ImageShape):
        super().__init__()
        after_pool_3 = (60, *map_size(lambda side: (((side - 3) // 2 - 2) // 2 - 2) // 2, input_shape))
        after_conv_4 = (80, *map_size(lambda side: (((side - 3) // 2 - 2) // 2 - 2) // 2 - 1, input_shape))
        self.conv_1 = nn.Conv2d(input_shape[0], 20, 4)
        self.conv_2 = nn.Conv2d(20, 40, 3)
        self.conv_3 = nn.Conv2d(40, 60, 3)
        self.conv_4 = nn.Conv2d(60, 80, 2)
        self.fc_1 = nn.Linear(math.prod(after_pool_3), 160)
        self.fc_2 = nn.Linear(math.prod(after_conv_4), 160)
        self.output = nn.Linear(160, num_classes)
        self.flat_inputs = {"fc_1": after_pool_3, "fc_2": after_conv_4}

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        for convolution in (self.conv_1, self.conv_2, self.conv_3):
            maps = F.max_pool2d(F.relu(convolution(maps)), 2)
        short = self.fc_1(maps.flatten(1))  # (N, 160)
        long = self.fc_2(F.relu(self.conv_4(maps)).flatten(1))  # (N, 160)
        logits: Tensor = self.output(F.relu(short + long))
        return logits
