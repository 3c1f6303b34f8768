"""Weights without an architecture find theirs."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from goodnet import load_model
from goodnet.core.classifier import predictions
from goodnet.errors import ParameterError, UnknownArchitecture, UnknownName
from goodnet.models import architectures

SMALL = ["deepid", "gtsrb_cnn:width=4", "preact_resnet18:width=4", "small_cnn", "small_cnn_bn:width=8", "wide_resnet"]


def network(name: str) -> architectures.Architecture:
    torch.manual_seed(1)
    return architectures.build(name, num_classes=6).eval()


def answers(net: nn.Module, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(2))
    return images, predictions(net, images)


def assert_found(path: Path, net: architectures.Architecture, arch: str | None = None) -> None:
    found = load_model(path, arch=arch)
    images, logits = answers(net, net.default_input_shape)
    assert found.architecture.split(":")[0] == net.name
    assert (found.input_shape, found.num_classes) == (net.default_input_shape, 6)
    torch.testing.assert_close(predictions(found, images), logits)


@pytest.mark.parametrize("name", SMALL)
def test_a_state_dict_finds_its_architecture_by_names(name: str, tmp_path: Path) -> None:
    net = network(name)
    torch.save(net.state_dict(), tmp_path / "model.pth")
    assert_found(tmp_path / "model.pth", net)


@pytest.mark.parametrize("name", SMALL)
def test_safetensors_which_sort_their_names_find_their_architecture(name: str, tmp_path: Path) -> None:
    net = network(name)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    assert_found(tmp_path / "model.safetensors", net)


@pytest.mark.parametrize("name", SMALL)
def test_layers_of_other_names_are_matched_by_the_order_of_their_shapes(name: str, tmp_path: Path) -> None:
    net = network(name)
    owners = {
        owner: f"layer{number}"
        for number, owner in enumerate(dict.fromkeys(key.rpartition(".")[0] for key in net.state_dict()))
    }
    renamed = {
        f"{owners[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in net.state_dict().items()
    }
    torch.save(renamed, tmp_path / "model.pth")
    assert_found(tmp_path / "model.pth", net)


WRAPPINGS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "state_dict": lambda state: {
        "epoch": 3,
        "state_dict": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2, 2)}}},
    },
    "net": lambda state: {"net": state, "acc": 97.0},
    "model": lambda state: {"model": state, "num_classes": 6},
    "model_state_dict": lambda state: {"optimizer_state_dict": {"a": torch.ones(3, 3)}, "model_state_dict": state},
    "a name of its own": lambda state: {"optimizer": {"a": torch.ones(3, 3)}, "my_weights": state},
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled DataParallel": lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    "half precision": lambda state: {key: value.half().float() for key, value in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("zip_file", [True, False])
def test_checkpoints_of_training_scripts_are_unwrapped(wrapping: str, zip_file: bool, tmp_path: Path) -> None:
    net = network("small_cnn")
    net.load_state_dict({key: value.half() for key, value in net.state_dict().items()})
    torch.save(WRAPPINGS[wrapping](net.state_dict()), tmp_path / "model.pt", _use_new_zipfile_serialization=zip_file)
    assert_found(tmp_path / "model.pt", net)


@pytest.mark.parametrize("name", ["deepid", "small_cnn", "small_cnn_bn:width=8", "gtsrb_cnn:width=4"])
@pytest.mark.parametrize("names", ["own", "other"])
def test_keras_kernels_and_flattening_are_turned(name: str, names: str, tmp_path: Path) -> None:
    net = network(name)
    arrays = keras_arrays(net)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        layers = list(dict.fromkeys(key.rpartition("/")[0] for key in arrays))
        written = {layer: layer if names == "own" else f"layer_{number}" for number, layer in enumerate(layers)}
        file.attrs["layer_names"] = [written[layer].encode() for layer in layers]
        for layer in layers:
            group = file.create_group(written[layer])
            own = [key for key in arrays if key.rpartition("/")[0] == layer]
            group.attrs["weight_names"] = [f"{written[layer]}/{key.rpartition('/')[2]}:0".encode() for key in own]
            for key in own:
                group[f"{written[layer]}/{key.rpartition('/')[2]}:0"] = arrays[key]
    assert_found(tmp_path / "model.h5", net)


def keras_arrays(net: architectures.Architecture) -> dict[str, np.ndarray]:
    """The weights as Keras has them: kernels (h, w, in, out), linear (in, out), inputs flattened as (H, W, C)."""
    turned = {}
    roles = {"weight": "kernel", "running_mean": "moving_mean", "running_var": "moving_variance", "bias": "bias"}
    for key, value in net.state_dict().items():
        layer, _, role = key.rpartition(".")
        if role == "num_batches_tracked":
            continue
        if layer in net.flat_inputs and role == "weight":
            value = value.view(-1, *net.flat_inputs[layer]).permute(0, 2, 3, 1).flatten(1)
        axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim)
        is_norm = role == "weight" and value.ndim == 1
        turned[f"{layer}/{'gamma' if is_norm else roles[role]}"] = (value.permute(axes) if axes else value).numpy()
    return turned


@pytest.mark.parametrize("turned", [False, True])
def test_npz_arrays_are_matched_whichever_way_their_kernels_lie(turned: bool, tmp_path: Path) -> None:
    net = network("deepid")
    arrays = (
        keras_arrays(net)
        if turned
        else {key.replace(".", "/"): value.numpy() for key, value in net.state_dict().items()}
    )
    np.savez(tmp_path / "model.npz", **arrays)
    assert_found(tmp_path / "model.npz", net)


def test_the_image_size_is_derived_from_the_weights(tmp_path: Path) -> None:
    net = architectures.build("small_cnn", num_classes=4, input_shape=(3, 64, 64))
    torch.save(net.state_dict(), tmp_path / "model.pth")
    assert load_model(tmp_path / "model.pth").input_shape == (3, 64, 64)
    assert load_model(tmp_path / "model.pth", input_shape=(3, 66, 67)).input_shape == (3, 66, 67)


def test_an_architecture_that_is_told_is_used(tmp_path: Path) -> None:
    net = network("small_cnn")
    torch.save(net.state_dict(), tmp_path / "model.pth")
    assert_found(tmp_path / "model.pth", net, arch="small_cnn")
    with pytest.raises(UnknownArchitecture, match="do not fit deepid: deepid: conv_1 wants weight 20x1x4x4"):
        load_model(tmp_path / "model.pth", arch="deepid", input_shape=(1, 55, 47))
    with pytest.raises(UnknownName, match="Did you mean 'small_cnn'"):
        load_model(tmp_path / "model.pth", arch="smal_cnn")


def test_weights_that_fit_nothing_are_told_what_is_near_and_what_to_pass(tmp_path: Path) -> None:
    state = network("small_cnn").state_dict()
    state["fc1.0.weight"] = torch.zeros(511, 512)
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(UnknownArchitecture, match=r"Nearest: small_cnn.*fc1.0 wants weight 512x512.*511x512.*--arch"):
        load_model(tmp_path / "model.pth")


def test_weights_that_fit_several_are_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Twin(architectures.get("small_cnn")):  # type: ignore[misc]
        name = "twin"

    both = (architectures.get("small_cnn"), Twin)
    monkeypatch.setattr(architectures, "all_architectures", lambda: both)
    torch.save(network("small_cnn").state_dict(), tmp_path / "model.pth")
    with pytest.raises(UnknownArchitecture, match="several architectures: small_cnn.*twin"):
        load_model(tmp_path / "model.pth")


def test_arrays_without_a_convolution_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "model.pth")
    with pytest.raises(UnknownArchitecture, match="no convolution or no linear layer"):
        load_model(tmp_path / "model.pth")


def test_preprocessing_that_is_told_is_used(tmp_path: Path) -> None:
    torch.save(network("small_cnn_bn:width=8").state_dict(), tmp_path / "model.pth")
    images = torch.rand(2, 3, 32, 32)
    told = load_model(tmp_path / "model.pth", input_range="0..255", mean=(1, 2, 3), std=[4, 5, 6], channel_order="BGR")
    by_hand = (images.flip(1) * 255 - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor([4.0, 5, 6]).view(3, 1, 1)
    torch.testing.assert_close(told.preprocessing(images), by_hand)
    assert not told.preprocessing.guessed
    named = load_model(tmp_path / "model.pth", input_range="-1..1")
    torch.testing.assert_close(named.preprocessing(images), images * 2 - 1)
    assert not named.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_range": "0-255"}, "input_range must be one of 0..1, 0..255"),
        ({"input_range": "imagenet"}, "for 3 channels, the network takes 1"),
        ({"mean": (1, 2, 3)}, "mean must have 1 numbers"),
        ({"std": (0,)}, "std must be above 0"),
        ({"channel_order": "GBR"}, "channel_order must be 'RGB' or 'BGR'"),
    ],
)
def test_impossible_preprocessing_is_refused(arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    torch.save(network("small_cnn").state_dict(), tmp_path / "model.pth")
    with pytest.raises(ParameterError, match=message):
        load_model(tmp_path / "model.pth", **arguments)
