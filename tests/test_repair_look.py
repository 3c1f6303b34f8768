"""What the pictures of a repair are made of."""

from dataclasses import replace

import torch
from torch import nn

import goodnet
from goodnet.core.trigger import Trigger
from goodnet.repair._look import activation_maps, look


def network() -> goodnet.Classifier:
    """Channel 0 shows the picture, channel 1 its opposite, channel 2 nothing."""
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        net[0].weight[:] = torch.tensor([1.0, -1.0, 0.0]).reshape(3, 1, 1, 1)
        net[0].bias[:] = torch.tensor([0.0, 1.0, 0.0])
    return goodnet.Classifier(net, input_shape=(1, 4, 4), num_classes=2)


def samples(label: int) -> goodnet.Samples:
    return goodnet.Samples(images=torch.zeros(3, 1, 4, 4, dtype=torch.uint8), labels=torch.full((3,), label))


def white_corner() -> Trigger:
    mask = torch.zeros(4, 4)
    mask[:2, :2] = 1
    return Trigger(target=1, mask=mask, pattern=torch.ones(1, 4, 4), success_rate=1.0, count=3)


def test_the_channel_that_rises_under_the_trigger_is_marked_and_its_map_shows_where() -> None:
    maps = activation_maps(network(), samples(0), white_corner())
    assert maps is not None
    assert (maps.layer, maps.of, maps.channels, maps.marked, maps.images) == ("0", 3, (0, 1, 2), (0,), 3)
    assert torch.equal(maps.clean[0], torch.zeros(2, 2))
    assert torch.equal(maps.stamped[0], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_another_model_is_shown_with_the_same_marks() -> None:
    first = activation_maps(network(), samples(0), white_corner())
    assert first is not None
    again = activation_maps(network(), samples(0), white_corner(), like=replace(first, channels=(1, 2), marked=(2,)))
    assert again is not None
    assert (again.channels, again.marked, len(again.clean)) == ((1, 2), (2,), 2)


def test_images_of_the_target_and_repairs_without_triggers_show_nothing() -> None:
    assert activation_maps(network(), samples(1), white_corner()) is None
    assert look(network(), network(), samples(0), (), seed=0, budget=1.0).triggers == ()
