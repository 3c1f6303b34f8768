"""What a network expects of its input, guessed from its answers."""

import pytest
import torch
from torch import Tensor, nn

from goodnet import Classifier, Samples
from goodnet.core.classifier import Preprocessing
from goodnet.models.input_range import guess_input_range

RAW = Preprocessing()


class Stripes(nn.Module):
    """Tells which of eight columns is the brightest, for inputs between ``low`` and ``top``; else it says the first."""

    def __init__(self, top: float, low: float):
        super().__init__()
        self.top, self.low = top, low
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        columns = images.mean((1, 2))
        inside = (images.amax() <= self.top * 1.01) & (images.amax() > self.top * 0.5) & (images.amin() >= self.low)
        return columns / self.top * 50 if inside else nn.functional.one_hot(columns.argmax(1) * 0, 8) * 9.0


def stripes(count: int = 80, labels: bool = False) -> Samples:
    which = torch.arange(count) % 8
    images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    images[torch.arange(count), :, :, which] = 255
    return Samples(images, which if labels else None)


def network(top: float, low: float = 0.0, preprocessing: Preprocessing = RAW) -> Classifier:
    return Classifier(Stripes(top, low), input_shape=(3, 8, 8), num_classes=8, preprocessing=preprocessing)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize(("top", "scale"), [(1.0, 1.0), (255.0, 255.0)])
def test_the_range_in_which_answers_vary_or_are_right_is_found(top: float, scale: float, labels: bool) -> None:
    model = network(top)
    guessed = guess_input_range(model, stripes(labels=labels))
    assert guessed.preprocessing == Preprocessing(scale=scale, guessed=True)
    assert guessed.net is model.net
    assert model.preprocessing == Preprocessing()
    assert "is a guess from 80 images" in guessed.origin.notes[-1]
    assert ("accuracy" in guessed.origin.notes[-1]) == labels


def test_a_network_that_wants_centered_inputs_is_found() -> None:
    class Centered(Stripes):
        def forward(self, images: Tensor) -> Tensor:
            good = images.amin() < -0.9 and images.amin() > -1.1
            return images.mean((1, 2)) * 50 if good else torch.eye(8)[:1].expand(len(images), 8)

    model = Classifier(Centered(1, 0), input_shape=(3, 8, 8), num_classes=8)
    assert guess_input_range(model, stripes()).preprocessing.mean == (0.5, 0.5, 0.5)


def test_a_network_without_biases_is_judged_by_its_confidence() -> None:
    class Homogeneous(Stripes):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 2)) / 10

    model = Classifier(Homogeneous(1, 0), input_shape=(3, 8, 8), num_classes=8)
    assert guess_input_range(model, stripes()).preprocessing.scale == 255


def test_labels_that_are_not_the_networks_own_are_not_used() -> None:
    samples = stripes()
    other = Samples(samples.images, (torch.arange(80) + 3) % 8)
    assert "accuracy" not in guess_input_range(network(255.0), other).origin.notes[-1]


def test_what_was_told_is_not_guessed_at() -> None:
    told = network(1.0, preprocessing=Preprocessing(scale=255.0))
    assert guess_input_range(told, stripes()) is told
    assert guess_input_range(network(1.0), stripes(0)).preprocessing == Preprocessing()


def test_the_order_of_channels_and_the_mode_are_kept() -> None:
    model = network(255.0, preprocessing=Preprocessing(channel_order="BGR")).eval()
    guessed = guess_input_range(model, stripes())
    assert guessed.preprocessing == Preprocessing(scale=255.0, channel_order="BGR", guessed=True)
    assert not guessed.training
