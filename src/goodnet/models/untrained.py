"""untrained and anew: networks with random weights, for these samples or of the kind of another one."""

import copy

from goodnet.core.classifier import Classifier, Origin
from goodnet.core.rng import isolated_rng
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.models import architectures


def untrained(architecture: str, samples: Samples, seed: int = 0) -> Classifier:
    """A network that takes images of this shape and knows these labels; its weights are drawn by ``seed``.

    Args:
        architecture: a name that ``architectures.build`` knows, options may follow it.
        samples: with labels; classes that are named count even where no image shows them.
        seed: same seed, same machine, same weights.

    Raises:
        NotHeld: the samples have no labels.
        UnknownName, ParameterError: as ``architectures.build``.
    """
    if samples.labels is None:
        raise NotHeld("a network is made for labeled samples; these have no labels")
    num_classes = max(int(samples.labels.max()) + 1, len(samples.class_names), 2)
    with isolated_rng(seed):
        net = architectures.build(architecture, num_classes=num_classes, input_shape=samples.shape)
    return Classifier(
        net,
        input_shape=samples.shape,
        num_classes=num_classes,
        architecture=architecture,
        class_names=samples.class_names,
    )


def anew(model: Classifier, seed: int = 0) -> Classifier:
    """A network of the same kind as ``model``, on its device, with weights drawn by ``seed`` and no history.

    Layers that cannot draw their weights (``reset_parameters``) keep those that they have.
    """
    fresh = copy.deepcopy(model).requires_grad_(True)
    with isolated_rng(seed):
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    fresh.origin = Origin()
    return fresh
