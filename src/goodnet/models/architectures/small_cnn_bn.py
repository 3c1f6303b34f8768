"""A six-convolution network with BatchNorm for 32x32 images."""

import math

from torch import Tensor, nn

from goodnet.models.architectures._base import Architecture, ImageShape, map_size, register


@register("small_cnn_bn", input_shape=(3, 32, 32))
class SmallCnnBn(Architecture):
    """Twice 3x3 convolution, BatchNorm and ELU, then pooling and dropout; three times with 32, 64 and 128 filters.

    Source: layout and parameter names of https://github.com/YiZeng623/I-BAU (MIT).
    """

    def __init__(self, *, num_classes: int, input_shape: ImageShape, width: int = 32):
        super().__init__()
        flat = (4 * width, *map_size(lambda side: side // 8, input_shape))
        layers: list[nn.Module] = []
        channels = input_shape[0]
        for filters, dropout in ((width, 0.2), (2 * width, 0.3), (4 * width, 0.4)):
            for source in (channels, filters):
                layers += [nn.Conv2d(source, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ELU()]
            layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
            channels = filters
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(math.prod(flat), num_classes)
        self.flat_inputs = {"classifier": flat}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits
