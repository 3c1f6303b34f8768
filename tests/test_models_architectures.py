"""Architectures by name."""

import pytest
import torch

from goodnet.errors import ParameterError, UnknownName
from goodnet.models import architectures


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_turns_its_default_images_into_logits(name: str) -> None:
    with torch.device("meta"):
        net = architectures.build(name, num_classes=7).eval()
        assert net(torch.zeros(2, *net.default_input_shape)).shape == (2, 7)


@pytest.mark.parametrize("name", architectures.names())
@pytest.mark.parametrize("shape", [(1, 64, 48), (3, 37, 41)])
def test_every_architecture_takes_images_of_other_shapes(name: str, shape: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        net = architectures.build(name, num_classes=5, input_shape=shape).eval()
        assert net(torch.zeros(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("name", architectures.names())
def test_linear_layers_after_maps_are_declared_with_the_shape_of_the_maps(name: str) -> None:
    with torch.device("meta"):
        net = architectures.build(name, num_classes=5)
    for layer, (channels, height, width) in net.flat_inputs.items():
        assert net.get_submodule(layer).in_features == channels * height * width


@pytest.mark.parametrize("name", [n for n in architectures.names() if "width" in architectures.get(n).options()])
def test_options_are_inferred_from_the_kernels(name: str) -> None:
    wanted = {"width": 8} | ({"depth": 22} if "depth" in architectures.get(name).options() else {})
    with torch.device("meta"):
        net = architectures.build(name, num_classes=5, **wanted)
    kernels = [tuple(value.shape) for value in net.state_dict().values() if value.ndim == 4]
    assert architectures.get(name).infer_options(kernels) == wanted


@pytest.mark.parametrize("written", ["wide_resnet:depth=22,width=2", "small_cnn", "preact_resnet18:width=16"])
def test_a_name_with_options_survives_being_read_and_written(written: str) -> None:
    assert architectures.text(*architectures.parse(written)) == written
    assert architectures.build(written, num_classes=3).name == written.split(":")[0]


def test_deepid_is_the_network_of_the_published_weights() -> None:
    shapes = {
        name: tuple(value.shape) for name, value in architectures.build("deepid", num_classes=1283).state_dict().items()
    }
    assert shapes["conv_1.weight"] == (20, 3, 4, 4)
    assert shapes["conv_4.weight"] == (80, 60, 2, 2)
    assert shapes["fc_1.weight"] == (160, 1200)
    assert shapes["fc_2.weight"] == (160, 960)
    assert shapes["output.weight"] == (1283, 160)


def test_an_unknown_name_comes_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'deepid'"):
        architectures.build("deepld", num_classes=3)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("deepid", {"width": 3}, "does not take width; it has no options"),
        ("preact_resnet18", {"depth": 3}, "does not take depth; it has width"),
        ("wide_resnet", {"depth": 17}, "depth must be 10, 16, 22"),
        ("deepid", {"input_shape": (3, 20, 20)}, "20x20 are too small"),
        ("deepid", {"num_classes": 0}, "must be at least 1"),
        ("small_cnn", {"width": 0}, "must be at least 1"),
        ("small_cnn:size=3", {}, "not 'size=3'"),
        ("small_cnn:width=x", {}, "not 'width=x'"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(name: str, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        architectures.build(name, **{"num_classes": 3, **arguments})
