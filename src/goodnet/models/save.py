"""save_model: a classifier as a folder that load_model reads back, with the same outputs."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import goodnet
from goodnet.core.classifier import Classifier
from goodnet.core.whole_folder import whole_folder
from goodnet.errors import GoodnetError, UsageError
from goodnet.models import architectures, keras_graph
from goodnet.models.formats.folder import ARRAYS, DESCRIPTION, Description


def save_model(classifier: Classifier, folder: str | os.PathLike[str]) -> None:
    """Write ``model.safetensors`` and ``model.json`` (network, preprocessing, class names, origin) into ``folder``.

    The folder appears complete or not at all. A folder that ``save_model`` wrote before is replaced.

    Raises:
        UsageError: ``folder`` is something else than a saved model, or the network is no longer that of its
            architecture or graph.
    """
    folder = Path(folder)
    if folder.exists() and not (
        folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {ARRAYS, DESCRIPTION}
    ):
        raise UsageError(f"{folder} exists and is no saved model; give another folder")
    description = _description(classifier)
    arrays = {name: value.detach().cpu().contiguous().clone() for name, value in classifier.net.state_dict().items()}
    with whole_folder(folder) as made:
        save_file(arrays, made / ARRAYS)
        (made / DESCRIPTION).write_text(description.model_dump_json(indent=1))


def _description(classifier: Classifier) -> Description:
    graph: Mapping[str, Any] | None = None
    net = classifier.net
    if isinstance(net, keras_graph.KerasNetwork):
        graph = net.model
    elif not classifier.architecture:
        raise UsageError(
            "a network with neither an architecture nor a graph cannot be saved; see architectures.names()"
        )
    _check_fits(classifier, graph)
    return Description.model_validate(
        {
            "goodnet": goodnet.__version__,
            "architecture": "" if graph else classifier.architecture,
            "graph": graph,
            "input_shape": classifier.input_shape,
            "num_classes": classifier.num_classes,
            "class_names": classifier.class_names,
            "preprocessing": asdict(classifier.preprocessing),
            "origin": asdict(classifier.origin),
        }
    )


def _check_fits(classifier: Classifier, graph: Mapping[str, Any] | None) -> None:
    """What will be built on loading must take the arrays that are saved."""
    fresh: torch.nn.Module
    try:
        if graph is not None:
            fresh = keras_graph.build(Path(classifier.origin.file), graph, classifier.input_shape)[0]
        else:
            with torch.device("meta"):
                fresh = architectures.build(
                    classifier.architecture, num_classes=classifier.num_classes, input_shape=classifier.input_shape
                )
    except GoodnetError as error:
        raise UsageError(f"the network cannot be built again: {error}") from error
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (fresh, classifier.net)]
    if shapes[0] != shapes[1]:
        different = sorted(
            name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)
        )
        kind = classifier.architecture or "its graph"
        raise UsageError(f"the network is no longer {kind}: {different[0]} differs; it cannot be saved")
