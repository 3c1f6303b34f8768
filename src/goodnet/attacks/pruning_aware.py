"""The pruning-aware attack: a backdoor in busy neurons, and idle ones put back as decoys for who prunes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from goodnet.attacks._base import Backdoored, attacks
from goodnet.attacks._training import stage
from goodnet.attacks.badnets import BadNets
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.training import Recipe, cross_entropy, fit


@attacks.register(
    Card(
        name="pruning-aware",
        version=1,
        needs=Needs.TRAINING_SET | Needs.TRAINING,
        source="Liu et al., Fine-Pruning, RAID 2018",
        summary="the square of BadNets, planted in busy neurons; idle ones are put back as decoys",
    )
)
@dataclass(frozen=True, kw_only=True)
class PruningAware(BadNets):
    """The attack in four stages of the Fine-Pruning paper; the trigger is that of BadNets.

    (1) The network is trained on clean images. (2) The channels of its last convolution that fire least on them are
    silenced. (3) It is trained on poisoned images, so that the backdoor must live in the channels that clean images
    use. (4) The silenced channels get their old weights back, with biases so low that they never fire: a defender who
    prunes the least active channels removes these decoys first and the backdoor never.

    Silent means constantly far below zero, in stages 3 and 4 alike, so that the network computes the same with the
    decoys as without them, whatever nonlinearity follows. The convolution taken is the last one that has a bias or is
    followed by BatchNorm, because a bias is what silences it.

    ``train`` takes the recipe twice, in stages 1 and 3. ``poison`` alone is BadNets.

    Source: Liu, Dolan-Gavitt, Garg, Fine-pruning: defending against backdooring attacks on deep neural networks,
    RAID 2018, section 3.
    """

    decoys: float = param(0.5, low=0.0, high=1.0, doc="share of the last convolution's channels made decoys")
    margin: float = param(1.0, low=0.0, doc="how far below zero decoys stay, in units of the largest activation")

    def _train(
        self, model: Classifier, samples: Samples, recipe: Recipe, seed: int, progress: Progress | None
    ) -> Backdoored:
        told = stage(progress, 0, 0.5, "clean training")
        clean = fit(model, samples, recipe, seed=seed, progress=told)
        parts = _last_channels(clean)
        activity, peaks = _activity(clean, parts, samples.images)
        idle = activity.argsort()[: round(self.decoys * len(activity))]
        depth = self.margin * float(peaks.abs().max())
        old = [array[idle].clone() for array in _arrays(clean, parts)]

        def silenced(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            _silence(model, parts, idle, depth)  # before every step: weight decay moves what is idle, too
            return cross_entropy(model, images, labels, generator)

        poisoned, told = self.poison(samples, seed=seed), stage(progress, 0.5, 1, "poisoned training")
        victim = fit(clean, poisoned.samples, recipe, seed=seed, loss=silenced, progress=told)
        for array, rows in zip(_arrays(victim, parts), old, strict=True):
            array[idle] = rows
        seen = [_activity(victim, parts, images)[1] for images in (samples.images, poisoned.samples.images)]
        _bias(victim, parts)[idle] -= torch.maximum(*seen)[idle] + depth
        return Backdoored(victim, poisoned.attack)


def _last_channels(model: Classifier) -> tuple[str, ...]:
    """The last convolution that can be silenced, and the BatchNorm that follows it, if one does.

    Raises:
        NotHeld: there is none.
    """
    layers = [*model.layers(), ("", nn.Identity())]
    for place in reversed(range(len(layers) - 1)):
        (name, layer), (next_name, follower) = layers[place], layers[place + 1]
        if isinstance(layer, nn.Conv2d):
            if isinstance(follower, nn.BatchNorm2d) and follower.affine and follower.num_features == layer.out_channels:
                return name, next_name
            if layer.bias is not None:
                return (name,)
    raise NotHeld("pruning-aware needs a convolution that has a bias or is followed by BatchNorm")


def _arrays(model: Classifier, parts: tuple[str, ...]) -> list[Tensor]:
    """The weights, biases and statistics of these layers, with a row for each channel; writing to them is meant."""
    states = (model.net.get_submodule(name).state_dict().values() for name in parts)
    return [array for state in states for array in state if array.ndim]


def _bias(model: Classifier, parts: tuple[str, ...]) -> Tensor:
    bias: Tensor = model.net.get_submodule(parts[-1]).state_dict()["bias"]
    return bias


def _silence(model: Classifier, parts: tuple[str, ...], channels: Tensor, depth: float) -> None:
    """Make these channels constantly minus ``depth``."""
    for array in _arrays(model, parts):
        array[channels] = 0
    _bias(model, parts)[channels] = -depth


def _activity(model: Classifier, parts: tuple[str, ...], images: Tensor) -> tuple[Tensor, Tensor]:
    """How strongly each channel fires on uint8 images, on average over images and places, and its highest value."""
    sums: list[Tensor] = []
    highest: list[Tensor] = []

    def look(_: nn.Module, __: object, maps: Tensor) -> None:
        sums.append(maps.clamp(min=0).mean((2, 3)).sum(0))
        highest.append(maps.amax((0, 2, 3)))

    handle = model.net.get_submodule(parts[-1]).register_forward_hook(look)
    try:
        predictions(model, images)
    finally:
        handle.remove()
    return torch.stack(sums).sum(0) / len(images), torch.stack(highest).amax(0)
