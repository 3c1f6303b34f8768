"""What a person wants to see of the features that a cleanser looked at: the samples of some labels, in a plane."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from goodnet.cleanse._base import Cleansed
from goodnet.cleanse._clusters import principal
from goodnet.cleanse._features import features
from goodnet.core.classifier import Classifier
from goodnet.core.samples import Samples
from goodnet.errors import NotApplicable

_MOST_LABELS = 4
_MOST_SAMPLES = 2000  # of a label; those with the highest scores, and as many of the rest as fit


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The samples of one label along the two leading principal components of their features.

    Attributes:
        label: as given in the training set.
        points: float32 (n, 2).
        kept: bool (n,).
        of: how many samples the label has; ``points`` may be fewer.
    """

    label: int
    points: Tensor
    kept: Tensor
    of: int


def clouds(model: Classifier | None, samples: Samples, cleansed: Cleansed) -> tuple[Cloud, ...]:
    """Those of the labels that lose most, or where none loses anything of the most suspicious; () without features.

    Args:
        model: in eval mode; None where the method looked at none.
        samples: the set that was cleansed.
        cleansed: the answer; its parameter "layer", where it has one, says whose output is looked at.
    """
    if model is None or samples.labels is None:
        return ()
    layer = str(cleansed.provenance.parameters.get("layer", ""))
    shown = sorted(cleansed.per_class, key=lambda one: (-one.removed, -one.score))
    hit = [one.label for one in shown if one.removed]
    try:
        return tuple(
            _cloud(model, samples, cleansed, layer, label)
            for label in (hit or [one.label for one in shown])[:_MOST_LABELS]
        )
    except NotApplicable:  # the network does not end in a linear layer
        return ()


def _cloud(model: Classifier, samples: Samples, cleansed: Cleansed, layer: str, label: int) -> Cloud:
    assert samples.labels is not None
    where = (samples.labels == label).nonzero()[:, 0]
    of, order = len(where), cleansed.scores[where].argsort(descending=True, stable=True)
    if of > _MOST_SAMPLES:
        half = _MOST_SAMPLES // 2
        step = max(1, (of - half) // half)
        where = where[_spaced(order, half, step)]
    seen = features(model, samples.pick(where).fitted_to(model.input_shape).images, layer)
    return Cloud(label=label, points=principal(seen, 2), kept=cleansed.keep[where], of=of)


def _spaced(order: Tensor, first: int, step: int) -> Sequence[int]:
    """The first places of an order, and every so many of the others."""
    picked: list[int] = order[:first].tolist() + order[first::step].tolist()
    return picked
