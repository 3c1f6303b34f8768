"""VGG-16 with the layer names of VGG-Face."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.models.architectures._base import Architecture, ImageShape, map_size, register

_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


@register("vgg16", input_shape=(3, 224, 224))
class Vgg16(Architecture):
    """Thirteen 3x3 convolutions in five blocks, conv1_1 to conv5_3, then fc6, fc7 and fc8.

    Source: Parkhi, Vedaldi, Zisserman, "Deep Face Recognition", BMVC 2015.
    """

    def __init__(self, *, num_classes: int, input_shape: ImageShape):
        super().__init__()
        flat = (512, *map_size(lambda side: side // 32, input_shape))
        channels = input_shape[0]
        for block, widths in enumerate(_BLOCKS, start=1):
            for position, width in enumerate(widths, start=1):
                self.add_module(f"conv{block}_{position}", nn.Conv2d(channels, width, 3, padding=1))
                channels = width
        self.fc6 = nn.Linear(math.prod(flat), 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.flat_inputs = {"fc6": flat}
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        for block, widths in enumerate(_BLOCKS, start=1):
            for position in range(1, len(widths) + 1):
                maps = F.relu(self.get_submodule(f"conv{block}_{position}")(maps))
            maps = F.max_pool2d(maps, 2)
        features = self.dropout(F.relu(self.fc6(maps.flatten(1))))  # (N, 4096)
        features = self.dropout(F.relu(self.fc7(features)))
        logits: Tensor = self.fc8(features)
        return logits
