"""Transfer learning: a student that keeps a teacher's first layers as they are."""

import copy

from torch import nn

from goodnet.core.classifier import Classifier
from goodnet.core.rng import isolated_rng
from goodnet.errors import ParameterError


def transfer(model: Classifier, num_classes: int, *, train_last: int = 1, seed: int = 0) -> Classifier:
    """A student of ``model``: a copy with a new head for ``num_classes`` labels, of which only the end learns.

    The student is trained with ``fit``, which leaves frozen parameters alone. 1 trains the new head alone, as with
    VGG-Face and most public teachers.

    Args:
        model: the teacher; it is left alone.
        num_classes: the student's labels, at least 1. Their names are not known.
        train_last: layers with weights, counted from the end, that learn; all others stay as the teacher has them.
        seed: of the new head's weights.

    Raises:
        ParameterError: the teacher does not end in a linear layer, or has fewer layers.
    """
    return freeze(with_new_head(model, num_classes, seed=seed), train_last=train_last)


def with_new_head(model: Classifier, num_classes: int, *, seed: int = 0) -> Classifier:
    """A copy of ``model`` that ends in a new linear layer with ``num_classes`` outputs, drawn from ``seed``.

    Raises:
        ParameterError: ``model`` does not end in a linear layer, or ``num_classes`` is below 1.
    """
    student = copy.deepcopy(model)
    head = student.head()
    if head is None:
        raise ParameterError("transfer learning replaces the last linear layer, and this network does not end in one")
    if num_classes < 1:
        raise ParameterError(f"num_classes must be at least 1, got {num_classes}")
    with isolated_rng(seed):
        made = nn.Linear(head.in_features, num_classes, bias=head.bias is not None)
    name = next(name for name, layer in student.net.named_modules() if layer is head)
    student.net.set_submodule(name, made.to(head.weight))
    student.num_classes, student.class_names = num_classes, ()
    return student


def freeze(model: Classifier, *, train_last: int) -> Classifier:
    """A copy of ``model`` in which only the last ``train_last`` layers with weights learn.

    Normalization layers before them keep their statistics too, also in train mode.

    Raises:
        ParameterError: there are not that many layers.
    """
    frozen = copy.deepcopy(model)
    weighted = layers_with_weights(frozen)
    if not 1 <= train_last <= len(weighted):
        raise ParameterError(f"train_last must be 1 to {len(weighted)} for this network, got {train_last}")
    order = [layer for _, layer in frozen.layers()]
    first = order.index(weighted[-train_last][1])
    frozen.requires_grad_(False)
    for layer in order[first:]:
        layer.requires_grad_(True)
    for layer in order[:first]:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.register_forward_pre_hook(_evaluate)
    return frozen


def layers_with_weights(model: Classifier) -> list[tuple[str, nn.Module]]:
    """The convolutions and linear layers, by name, in the order in which a forward pass first runs them."""
    return [
        (name, layer)
        for name, layer in model.layers()
        if any(parameter.ndim > 1 for parameter in layer.parameters(recurse=False))
    ]


def _evaluate(layer: nn.Module, _: object) -> None:
    layer.eval()
