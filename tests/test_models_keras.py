"""Whole Keras models, read by goodnet without Keras, answer as Keras itself does."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

from goodnet import load_model  # noqa: E402
from goodnet.core.classifier import predictions  # noqa: E402

L = keras.layers

# every layer that takes maps (9, 8, 3) and gives maps
MAPS: dict[str, Callable[[], Any]] = {
    "convolution, valid": lambda: L.Conv2D(4, 3, activation="relu"),
    "convolution, same": lambda: L.Conv2D(4, 3, padding="same"),
    "convolution, same with strides 2": lambda: L.Conv2D(4, 3, strides=2, padding="same"),
    "convolution, same, even kernel, strides 3 and 2": lambda: L.Conv2D(4, (4, 2), strides=(3, 2), padding="same"),
    "convolution, dilated": lambda: L.Conv2D(4, 3, dilation_rate=(2, 1), padding="same"),
    "convolution, groups": lambda: L.Conv2D(6, 3, groups=3, use_bias=False),
    "depthwise": lambda: L.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2, activation="tanh"),
    "separable": lambda: L.SeparableConv2D(5, 3, depth_multiplier=2, padding="same", strides=2),
    "max pooling": lambda: L.MaxPooling2D(),
    "max pooling, same": lambda: L.MaxPooling2D(3, strides=2, padding="same"),
    "average pooling": lambda: L.AveragePooling2D((2, 3)),
    "average pooling, same but even": lambda: L.AveragePooling2D(1, strides=2, padding="same"),
    "dense on maps": lambda: L.Dense(4, activation="elu"),
    "batch normalization": lambda: L.BatchNormalization(epsilon=0.01),
    "batch normalization without scale": lambda: L.BatchNormalization(scale=False),
    "batch normalization without center": lambda: L.BatchNormalization(center=False),
    "normalization": lambda: L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
    "rescaling": lambda: L.Rescaling([1.0, 2.0, 3.0], offset=-1.0),
    "prelu": lambda: L.PReLU(alpha_initializer="random_normal"),
    "prelu, shared": lambda: L.PReLU(alpha_initializer="random_normal", shared_axes=[1, 2]),
    "zero padding": lambda: L.ZeroPadding2D(((1, 2), (0, 3))),
    "cropping": lambda: L.Cropping2D(((1, 2), (0, 3))),
    "up-sampling, nearest": lambda: L.UpSampling2D((2, 3)),
    "up-sampling, bilinear": lambda: L.UpSampling2D(2, interpolation="bilinear"),
    "reshape": lambda: L.Reshape((8, 3, 9)),
    "permute": lambda: L.Permute((3, 1, 2)),
    "relu": lambda: L.ReLU(),
    "relu with settings": lambda: L.ReLU(max_value=0.5, negative_slope=0.1, threshold=0.2),
    "relu6": lambda: L.ReLU(max_value=6),
    "leaky relu": lambda: L.LeakyReLU(0.2),
    "elu": lambda: L.ELU(0.7),
    "softmax": lambda: L.Softmax(),
    "softmax over rows": lambda: L.Softmax(axis=1),
    "dropout": lambda: L.Dropout(0.5),
    "spatial dropout": lambda: L.SpatialDropout2D(0.5),
    "gaussian noise": lambda: L.GaussianNoise(0.5),
    **{
        f"activation {name}": lambda name=name: L.Activation(name)
        for name in ("relu", "relu6", "tanh", "sigmoid", "softmax", "softplus", "softsign", "linear", "elu", "selu")
    },
    **{
        f"activation {name}": lambda name=name: L.Activation(name)
        for name in ("gelu", "swish", "silu", "leaky_relu", "hard_silu", "mish")
    },
}
FLATTENING: dict[str, Callable[[], Any]] = {
    "flatten": lambda: L.Flatten(),
    "global average": lambda: L.GlobalAveragePooling2D(),
    "global max": lambda: L.GlobalMaxPooling2D(),
    "global average, axes kept": lambda: keras.Sequential([L.GlobalAveragePooling2D(keepdims=True), L.Flatten()]),
    "reshape to a row": lambda: L.Reshape((-1,)),
}
MERGES: dict[str, Callable[[], Any]] = {
    "add": lambda: L.Add(),
    "subtract": lambda: L.Subtract(),
    "multiply": lambda: L.Multiply(),
    "average": lambda: L.Average(),
    "maximum": lambda: L.Maximum(),
    "minimum": lambda: L.Minimum(),
    "concatenate": lambda: L.Concatenate(),
    "concatenate rows": lambda: L.Concatenate(axis=1),
}


@pytest.fixture(autouse=True)
def _fresh_keras() -> None:
    keras.utils.set_random_seed(3)


def randomize(model: Any) -> None:
    """Weights and BatchNorm statistics that are neither 0 nor 1."""
    generator = np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(generator.uniform(0.1, 0.9, weight.shape).astype(np.float32) - 0.4 * ("var" not in weight.path))


def assert_same_answers(model: Any, folder: Path, drops: str = "") -> None:
    """goodnet's logits of random images are Keras's, up to a final softmax, from both file formats of Keras."""
    for suffix in (".h5", ".keras"):
        model.save(folder / f"model{suffix}")
        assert_file_answers(model, folder / f"model{suffix}", drops)


def in_keras_order(model: Any, images: torch.Tensor) -> np.ndarray:
    return (images if model.input_shape[1:] == images.shape[1:] else images.permute(0, 2, 3, 1)).numpy()


def assert_file_answers(model: Any, path: Path, drops: str) -> None:
    ours = load_model(path)
    assert not any(tensor.is_meta for tensor in ours.state_dict().values())
    images = torch.rand(3, *ours.input_shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        theirs = np.asarray(model(in_keras_order(model, images), training=False).cpu())
    logits = predictions(ours, images)
    answers = {"softmax": lambda: logits.softmax(1), "sigmoid": logits.sigmoid, "": lambda: logits}[drops]()
    assert logits.shape == (3, ours.num_classes)
    np.testing.assert_allclose(answers.numpy(), theirs, atol=1e-4, rtol=1e-4)


pytestmark = pytest.mark.filterwarnings("ignore")  # of Keras about its own file format


@pytest.mark.parametrize("name", MAPS)
def test_a_layer_on_maps_answers_as_in_keras(name: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((9, 8, 3)), MAPS[name](), L.Flatten(), L.Dense(4)])
    randomize(model)
    assert_same_answers(model, tmp_path)


@pytest.mark.parametrize("name", FLATTENING)
def test_a_layer_from_maps_to_rows_answers_as_in_keras(name: str, tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((6, 5, 3)), FLATTENING[name](), L.Dense(8, "relu"), L.BatchNormalization(), L.Dense(4)]
    )
    randomize(model)
    assert_same_answers(model, tmp_path)


@pytest.mark.parametrize("name", MERGES)
def test_a_layer_that_merges_answers_as_in_keras(name: str, tmp_path: Path) -> None:
    images = keras.Input((6, 5, 3))
    left, right = L.Conv2D(4, 3, padding="same")(images), L.Conv2D(4, 1)(images)
    model = keras.Model(images, L.Dense(3)(L.Flatten()(MERGES[name]()([left, right]))))
    randomize(model)
    assert_same_answers(model, tmp_path)


@pytest.mark.parametrize("final", ["softmax", "sigmoid"])
def test_a_final_softmax_is_dropped_so_that_logits_come_out(final: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6, 5, 1)), L.Flatten(), L.Dense(4, activation=final)])
    assert_same_answers(model, tmp_path, drops=final)
    model = keras.Sequential([keras.Input((6, 5, 1)), L.Flatten(), L.Dense(4), L.Activation(final)])
    assert_same_answers(model, tmp_path, drops=final)


def nested() -> Any:
    """Two models of the same inner names inside one, shared layers, sums as operators."""
    inner = [
        keras.Sequential(
            [keras.Input((6, 5, 4)), L.Conv2D(4, 3, padding="same", name="c"), L.BatchNormalization(name="b")]
        )
        for _ in "ab"
    ]
    images = keras.Input((6, 5, 3))
    shared = L.Conv2D(4, 1, name="shared")
    maps = shared(images)
    total = inner[0](maps) + inner[1](maps) + inner[0](shared(images))
    deeper = keras.Sequential([keras.Sequential([keras.Input((6, 5, 4)), L.Conv2D(2, 3)]), L.Flatten()])
    return keras.Model(images, L.Dense(3, "softmax")(deeper(total)))


def test_average_pooling_with_padding_leaves_the_padding_out_as_tensorflow_does(tmp_path: Path) -> None:
    # Keras on torch repeats the edge instead, so the oracle is a case worked by hand
    model = keras.Sequential(
        [
            keras.Input((2, 4, 1)),
            L.AveragePooling2D((2, 3), strides=(2, 2), padding="same"),
            L.Flatten(),
            L.Dense(2, kernel_initializer="identity"),
        ]
    )
    model.save(tmp_path / "model.h5")
    ours = load_model(tmp_path / "model.h5")
    images = torch.tensor([[[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]])
    assert torch.equal(predictions(ours, images), torch.tensor([[4.0, 5.5]]))


def test_nested_models_and_shared_layers_answer_as_in_keras(tmp_path: Path) -> None:
    model = nested()
    randomize(model)
    assert_same_answers(model, tmp_path, drops="softmax")


def test_a_normalization_that_was_adapted_to_data_keeps_its_statistics(tmp_path: Path) -> None:
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).normal(2, 3, (20, 6, 5, 3)))
    model = keras.Sequential([keras.Input((6, 5, 3)), layer, L.Flatten(), L.Dense(3)])
    assert_same_answers(model, tmp_path)


@pytest.mark.parametrize("flatten", ["channels_first", "channels_last"])
def test_a_model_with_channels_first_answers_as_in_keras(flatten: str, tmp_path: Path) -> None:
    first = "channels_first"
    model = keras.Sequential(
        [
            keras.Input((3, 9, 8)),
            L.Conv2D(4, 3, strides=2, padding="same", data_format=first),
            L.BatchNormalization(axis=1),
            L.PReLU(alpha_initializer="random_normal", shared_axes=[2]),
            L.MaxPooling2D(2, data_format=first),
            L.Permute((2, 1, 3)),
            L.Reshape((2, 4, 2)),
            L.Flatten(data_format=flatten),
            L.Dense(3),
        ]
    )
    randomize(model)
    assert_same_answers(model, tmp_path)


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0"])
def test_well_known_networks_answer_as_in_keras(name: str, tmp_path: Path) -> None:
    model = getattr(keras.applications, name)(weights=None, input_shape=(48, 48, 3), classes=5)
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight.numpy() + generator.uniform(0, 0.05, weight.shape).astype(np.float32))
    model.save(tmp_path / "model.keras")
    ours = load_model(tmp_path / "model.keras")
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        inputs = (images * ours.preprocessing.scale).permute(0, 2, 3, 1).numpy()
        theirs = np.asarray(model(inputs, training=False).cpu())
    assert theirs.max() > theirs.min() + 0.01
    np.testing.assert_allclose(predictions(ours, images).softmax(1).numpy(), theirs, atol=1e-4)
    assert ours.preprocessing.scale == (255 if name == "EfficientNetB0" else 1)


def test_weights_alone_in_the_layout_of_keras_3_find_their_architecture(tmp_path: Path) -> None:
    images = keras.Input((55, 47, 3))
    maps = images
    for filters, size in ((20, 4), (40, 3), (60, 3)):
        maps = L.MaxPooling2D()(L.Conv2D(filters, size, activation="relu")(maps))
    long = L.Dense(160)(L.Flatten()(L.Conv2D(80, 2, activation="relu")(maps)))
    short = L.Dense(160)(L.Flatten()(maps))
    model = keras.Model(images, L.Dense(7)(L.ReLU()(L.Add()([short, long]))))
    model.save_weights(tmp_path / "model.weights.h5")
    ours = load_model(tmp_path / "model.weights.h5")
    assert (ours.architecture, ours.num_classes, ours.input_shape) == ("deepid", 7, (3, 55, 47))
    faces = torch.rand(2, 3, 55, 47)
    with torch.no_grad():
        theirs = np.asarray(model(faces.permute(0, 2, 3, 1).numpy()).cpu())
    np.testing.assert_allclose(predictions(ours, faces).numpy(), theirs, atol=1e-4)
