"""Saved models come back with the same outputs."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from goodnet import Classifier, load_model, save_model
from goodnet.core.classifier import Origin, Preprocessing, predictions
from goodnet.errors import UnreadableModel, UsageError
from goodnet.models import architectures, keras_graph

GRAPH = {
    "class_name": "Sequential",
    "config": {
        "name": "net",
        "layers": [
            {"class_name": "InputLayer", "config": {"name": "in", "batch_input_shape": [None, 8, 6, 3]}},
            {
                "class_name": "Conv2D",
                "config": {"name": "c", "filters": 4, "kernel_size": [3, 3], "activation": "relu"},
            },
            {"class_name": "BatchNormalization", "config": {"name": "b", "scale": False}},
            {"class_name": "Normalization", "config": {"name": "n", "mean": [1, 2, 3, 4], "variance": [1, 1, 2, 2]}},
            {"class_name": "Flatten", "config": {"name": "f"}},
            {"class_name": "Dense", "config": {"name": "d", "units": 5, "activation": "softmax"}},
        ],
    },
}


def classifier(architecture: str = "small_cnn_bn:width=4") -> Classifier:
    torch.manual_seed(0)
    net = architectures.build(architecture, num_classes=5)
    return Classifier(
        net,
        input_shape=net.default_input_shape,
        num_classes=5,
        preprocessing=Preprocessing(255.0, (1.0,) * 3, (2.0,) * 3, "BGR", True),
        architecture=architecture,
        class_names=("a", "b", "c", "d", "é"),
        origin=Origin("somewhere.pth", "ab" * 32, "torch zip", ("a note",), ({"method": "prune", "seed": 3},)),
    )


def keras_classifier() -> Classifier:
    torch.manual_seed(0)
    network, shape, _ = keras_graph.build(Path("model.h5"), GRAPH, None)
    wanted = {owner.path[0]: len(owner.slots) for owner in network.owners}
    assert wanted == {"c": 2, "b": 3, "d": 2}
    arrays = {"c/kernel": (3, 3, 3, 4), "c/bias": (4,), "b/beta": (4,), "b/mean": (4,), "b/variance": (4,)}
    arrays |= {"d/kernel": (6 * 4 * 4, 5), "d/bias": (5,)}
    keras_graph.fill(Path("model.h5"), network, {name: torch.rand(size) for name, size in arrays.items()})
    return Classifier(network, input_shape=shape, num_classes=5)


@pytest.mark.parametrize("make", [classifier, keras_classifier])
def test_a_saved_model_gives_the_same_outputs_and_knows_the_same(make: type[Classifier], tmp_path: Path) -> None:
    model = make()
    save_model(model, tmp_path / "new" / "saved")
    again = load_model(tmp_path / "new" / "saved")
    images = torch.rand(3, *model.input_shape)
    assert torch.equal(predictions(again, images), predictions(model, images))
    for known in ("input_shape", "num_classes", "preprocessing", "architecture", "class_names", "origin"):
        assert getattr(again, known) == getattr(model, known)
    assert all(parameter.requires_grad for parameter in again.parameters())
    save_model(again, tmp_path / "twice")
    assert torch.equal(predictions(load_model(tmp_path / "twice"), images), predictions(model, images))


def test_saving_replaces_a_saved_model_and_leaves_nothing_else(tmp_path: Path) -> None:
    save_model(classifier(), tmp_path / "saved")
    save_model(keras_classifier(), tmp_path / "saved")
    assert load_model(tmp_path / "saved").architecture == ""
    assert os.listdir(tmp_path) == ["saved"]
    assert sorted(os.listdir(tmp_path / "saved")) == ["model.json", "model.safetensors"]


def test_saving_never_replaces_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for taken in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(UsageError, match="is no saved model"):
            save_model(classifier(), taken)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(classifier(), tmp_path / "saved")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("goodnet.models.save.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        save_model(keras_classifier(), tmp_path / "saved")
    assert os.listdir(tmp_path) == ["saved"]
    assert load_model(tmp_path / "saved").architecture == "small_cnn_bn:width=4"


def test_a_network_that_no_longer_fits_its_architecture_is_not_saved(tmp_path: Path) -> None:
    changed = classifier()
    changed.net.classifier = nn.Linear(4 * 4 * 16, 6)  # type: ignore[assignment]
    with pytest.raises(UsageError, match="no longer small_cnn_bn:width=4: classifier.bias differs"):
        save_model(changed, tmp_path / "saved")
    unknown = Classifier(nn.Linear(3, 3), input_shape=(1, 1, 3), num_classes=3)
    with pytest.raises(UsageError, match="neither an architecture nor a graph"):
        save_model(unknown, tmp_path / "saved")
    misnamed = classifier()
    misnamed.architecture = "smal_cnn"
    with pytest.raises(UsageError, match="Did you mean 'small_cnn'"):
        save_model(misnamed, tmp_path / "saved")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("architecture", "smal_cnn", "Did you mean"),
        ("num_classes", 7, "size mismatch"),
        ("num_classes", 10**30, "description"),
        ("input_shape", [3, 10**9, 32], "description"),
        ("input_shape", [3, 40, 40], "size mismatch"),
        ("extra", 1, "description"),
        ("version", 2, "description"),
        ("graph", {"class_name": "Sequential"}, "Keras model"),
    ],
)
def test_a_damaged_description_is_refused(key: str, value: object, message: str, tmp_path: Path) -> None:
    save_model(classifier(), tmp_path / "saved")
    description = json.loads((tmp_path / "saved" / "model.json").read_text())
    (tmp_path / "saved" / "model.json").write_text(json.dumps(description | {key: value}))
    with pytest.raises(UnreadableModel, match=message):
        load_model(tmp_path / "saved")


def test_a_folder_that_is_no_saved_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel):
        load_model(tmp_path)


def test_a_saved_model_takes_other_preprocessing_but_no_other_architecture(tmp_path: Path) -> None:
    save_model(classifier(), tmp_path / "saved")
    told = load_model(tmp_path / "saved", input_range="0..1")
    assert told.preprocessing == replace(Preprocessing(), channel_order="BGR")
    with pytest.raises(UsageError, match="leave them out"):
        load_model(tmp_path / "saved", arch="small_cnn")
