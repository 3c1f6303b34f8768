"""A folded network answers the same, and the network it was made of stays what it was."""

import pytest
import torch
from torch import nn

from goodnet.audit._folded import folded
from goodnet.core.classifier import Classifier
from goodnet.models import architectures


def normalizations(model: Classifier) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


def used(name: str, **options: int) -> Classifier:
    """A network whose normalizations are not those of a new one, which change nothing."""
    torch.manual_seed(0)
    net = architectures.build(name, num_classes=5, input_shape=(3, 32, 32), **options)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
    return Classifier(net, input_shape=(3, 32, 32), num_classes=5).eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["small_cnn_bn", "resnet18", "wide_resnet"])
def test_the_same_logits_with_fewer_layers(name):
    model = used(name)
    layers, images = normalizations(model), torch.rand(4, 3, 32, 32)
    faster = folded(model)
    assert normalizations(faster) < layers == normalizations(model)
    torch.testing.assert_close(faster(images), model(images), rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in faster.parameters())


def test_a_network_without_normalization_is_not_copied():
    model = used("small_cnn")
    assert folded(model) is model


class Dark(nn.Module):
    """Normalizes bright images alone: torch.fx cannot follow that."""

    def __init__(self):
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)

    def forward(self, images):
        channels = self.convolution(images)
        if images.mean() > 0.5:
            channels = self.normalization(channels)
        return channels.mean((2, 3))


def test_a_network_that_decides_by_its_images_is_left_as_it_is():
    model = Classifier(Dark(), input_shape=(3, 8, 8), num_classes=5).eval()
    assert folded(model) is model


class Twice(nn.Module):
    """A convolution whose result is read twice, and one that is run twice: neither can be folded."""

    def __init__(self):
        super().__init__()
        self.read_twice, self.run_twice = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.first, self.second, self.head = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Conv2d(3, 5, 1)
        for layer in (self.first, self.second):
            layer.running_mean.fill_(0.7)

    def forward(self, images):
        channels = self.read_twice(images)
        channels = channels + self.first(channels)
        channels = self.run_twice(self.second(self.run_twice(channels)))
        return self.head(channels).mean((2, 3))


def test_layers_that_others_need_as_they_are_stay():
    model = Classifier(Twice(), input_shape=(3, 8, 8), num_classes=5).eval().requires_grad_(False)
    images = torch.rand(4, 3, 8, 8)
    faster = folded(model)
    assert normalizations(faster) == 2
    torch.testing.assert_close(faster(images), model(images))
