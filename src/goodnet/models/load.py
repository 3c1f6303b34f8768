"""load_model: one entrance for every model file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from goodnet.core.classifier import Classifier, Origin, Preprocessing
from goodnet.errors import ParameterError, UsageError
from goodnet.models import architectures, formats, keras_graph, match
from goodnet.models.file_safety import require_safe
from goodnet.models.formats.folder import Description
from goodnet.models.input_range import preprocessing_for

ImageShape = tuple[int, int, int]


def load_model(
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    input_range: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> Classifier:
    """The classifier in a model file, on the CPU, in eval mode. Nothing in the file is executed.

    Args:
        path: ``.pt .pth .tar .bin`` (torch), ``.safetensors``, ``.npz``, ``.h5 .hdf5 .keras`` (Keras), or a folder of
            ``save_model``.
        arch: name of the architecture, options may follow it (``"wide_resnet:depth=16,width=1"``), for files that hold
            only weights; None finds it by names and shapes.
        input_range: what the network was trained on: "0..1", "0..255", "-1..1", "cifar10" or "imagenet" (mean and
            standard deviation of that data set). None: what the file says, else "0..1"; see ``guess_input_range``.
        mean: per channel, in units of ``input_range`` ("0..1" or "0..255"); instead of that of a named range.
        std: per channel, likewise.
        channel_order: "RGB" or "BGR"; None: what the file says, else RGB.
        input_shape: (C, H, W) of the images; None: what the file or its weights say, else the architecture's usual one.

    Raises:
        UnsafeFile: loading the file the usual way would run code.
        UnreadableModel: no such file, or damaged, absurd or of a kind that goodnet does not read.
        UnknownArchitecture: the weights fit no architecture, or several; pass ``arch``.
        UnknownName: no architecture ``arch``.
        ParameterError: an argument is out of its range.
        UsageError: ``arch`` or ``input_shape`` for a folder of ``save_model``, which knows them.
    """
    path = Path(path)
    scanned = require_safe(path)
    file = formats.read(path, scanned.kind)
    if file.description is not None:
        if arch is not None or input_shape is not None:
            raise UsageError(f"{path} is a saved model, which knows its architecture and input shape; leave them out")
        classifier = _saved(path, file.description, file.arrays)
    elif file.graph is not None and arch is None:
        classifier = _whole(path, file.graph, file.arrays, input_shape)
    else:
        classifier = _weights(path, file, arch, input_shape)
    if file.description is None:
        classifier.origin = replace(classifier.origin, file=str(path), sha256=scanned.sha256, format=file.format)
    classifier.preprocessing = _preprocessing(
        classifier.preprocessing, classifier.input_shape[0], input_range, mean, std, channel_order
    )
    return classifier.eval()


def _weights(path: Path, file: formats.ModelFile, arch: str | None, input_shape: ImageShape | None) -> Classifier:
    """Arrays only: the architecture is told or found."""
    found = match.find(path, file, arch=arch, input_shape=input_shape)
    return Classifier(
        found.net,
        input_shape=found.input_shape,
        num_classes=found.num_classes,
        architecture=found.architecture,
        origin=Origin(notes=found.notes),
    )


def _whole(
    path: Path, graph: Mapping[str, Any], arrays: Mapping[str, Tensor], input_shape: ImageShape | None
) -> Classifier:
    """A Keras model with its own graph."""
    network, shape, dropped = keras_graph.build(path, graph, input_shape)
    keras_graph.fill(path, network, arrays)
    notes = ["architecture from the graph in the file"]
    if dropped:
        notes.append(f"the final {dropped} was left out: the classifier gives logits")
    scale = keras_graph.scale_of(network)
    if scale != 1:
        notes.append("inputs 0..255: the network itself scales them down")
    return Classifier(
        network,
        input_shape=shape,
        num_classes=network.output_shape[0],
        preprocessing=Preprocessing(scale=scale),
        origin=Origin(notes=tuple(notes)),
    )


def _saved(path: Path, description: Description, arrays: Mapping[str, Tensor]) -> Classifier:
    """What ``save_model`` wrote."""
    net: nn.Module
    with formats.reading(path, "a saved model"), torch.device("meta"):
        if description.graph is not None:
            net = keras_graph.build(path, description.graph, description.input_shape)[0]
        else:
            net = architectures.build(
                description.architecture, num_classes=description.num_classes, input_shape=description.input_shape
            )
        net.load_state_dict(dict(arrays), assign=True)
    return Classifier(
        net,
        input_shape=description.input_shape,
        num_classes=description.num_classes,
        preprocessing=Preprocessing(**description.preprocessing.model_dump()),
        architecture=description.architecture,
        class_names=description.class_names,
        origin=Origin(**description.origin.model_dump()),
    )


def _preprocessing(
    said: Preprocessing,
    channels: int,
    input_range: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    channel_order: str | None,
) -> Preprocessing:
    """What the file ``said``, replaced where the caller knows better."""
    if channel_order not in (None, "RGB", "BGR"):
        raise ParameterError(f"channel_order must be 'RGB' or 'BGR', got {channel_order!r}")
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise ParameterError(f"{name} must have {channels} numbers, one per channel, got {len(values)}")
    if std is not None and not min(std) > 0:
        raise ParameterError(f"std must be above 0, got {tuple(std)}")
    chosen = (
        said
        if input_range is None
        else replace(preprocessing_for(input_range, channels), channel_order=said.channel_order)
    )
    return replace(
        chosen,
        mean=chosen.mean if mean is None else tuple(map(float, mean)),
        std=chosen.std if std is None else tuple(map(float, std)),
        channel_order=channel_order or chosen.channel_order,
    )
