"""Channels of convolutions: which there are, how active each is on clean images, and silencing them.

A pruned channel is one whose output is zero: weights and bias of that filter are zeroed. Where a BatchNorm reads the
convolution directly, it would make a constant of the zeros, so weight, bias and running mean of its channel are zeroed
as well: its output is zero, in eval and in training mode. An activation that follows may still turn 0 into something
else, as a sigmoid does.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from goodnet.core.classifier import Classifier
from goodnet.errors import NotApplicable
from goodnet.repair._tail import Tail, batches, traced


@dataclass(frozen=True)
class Convolution:
    """A convolution whose channels can be pruned.

    Attributes:
        name: as in ``Classifier.layers``.
        channels: how many it puts out.
        norms: the BatchNorm layers that read its output directly; one or none, as a rule.
    """

    name: str
    channels: int
    norms: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer in which a pruned channel is zero."""
        return (self.name, *self.norms)


@dataclass(frozen=True)
class Channel:
    """One channel, counted from 0, of a convolution."""

    convolution: Convolution
    index: int


def convolutions(classifier: Classifier) -> list[Convolution]:
    """All two-dimensional convolutions in execution order, each with the BatchNorm that directly follows."""
    found: dict[str, tuple[Tensor, list[str]]] = {}  # its output, its norms
    handles = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                found[name] = (output, [])
            else:
                for made, norms in found.values():
                    if made is inputs[0]:
                        norms.append(name)

        return hook

    layers = dict(classifier.layers())
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            handles.append(layer.register_forward_hook(note(name)))
    try:
        classifier.layers()  # runs the network once, in eval mode
    finally:
        for handle in handles:
            handle.remove()
    sizes = {name: layer.out_channels for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
    return [Convolution(name, size, tuple(found[name][1])) for name, size in sizes.items()]


def chosen_convolutions(classifier: Classifier, last: int, name: str | None = None) -> list[Convolution]:
    """The convolution ``name``, or the ``last`` ones that run, the very last first.

    Raises:
        NotApplicable: there are not so many, or none of this name.
    """
    found = convolutions(classifier)
    names = ", ".join(one.name for one in found) or "none"
    if name is not None:
        if not any(one.name == name for one in found):
            raise NotApplicable(f"this network has no convolution {name!r}; it has {names}")
        return [one for one in found if one.name == name]
    if len(found) < last:
        raise NotApplicable(f"pruning {last} convolution(s) needs a network that has them; this one has {names}")
    return found[::-1][:last]


@torch.no_grad()
def activity(classifier: Classifier, chosen: Sequence[Convolution], images: Tensor, criterion: str) -> list[Tensor]:
    """How active each channel of each convolution is on ``images``: (channels,) each; larger is more active.

    It is read behind the normalization, activation and pooling that follow the convolution, as the Fine-Pruning code
    does, and before anything that mixes channels or adds a shortcut; in a network that cannot be traced, at the
    convolution itself.

    Args:
        classifier: in any mode; untouched.
        chosen: see ``convolutions``.
        images: uint8 or [0, 1] float (N, C, H, W).
        criterion: "mean", of the absolute value: behind a ReLU that is the paper's mean activation; or "apoz", by which
            the activity is the share of values above zero, 1 - average percentage of zeros (Hu et al., 2016).
    """
    model = copy.deepcopy(classifier).eval()
    sums = [torch.zeros(one.channels, dtype=torch.float64) for one in chosen]
    reads = _reader(model, chosen)
    for batch in batches(model, images):
        for total, values in zip(sums, reads(batch), strict=True):
            counted = values.abs() if criterion == "mean" else (values > 0).float()
            total += counted.flatten(2).mean(2).sum(0).cpu().double()
    return [total / len(images) for total in sums]


@torch.no_grad()
def mean_maps(classifier: Classifier, chosen: Convolution, images: Tensor) -> Tensor:
    """The mean output map of each channel over ``images``: float32 (channels, h, w), on the CPU; read as ``activity``.

    Args:
        classifier: in any mode; untouched.
        chosen: see ``convolutions``.
        images: uint8 or [0, 1] float (N, C, H, W), at least one.
    """
    model = copy.deepcopy(classifier).eval()
    reads = _reader(model, [chosen])
    parts = [reads(batch)[0].sum(0).cpu().double() for batch in batches(model, images)]
    return (torch.stack(parts).sum(0) / len(images)).float()


def _reader(model: Classifier, chosen: Sequence[Convolution]) -> Any:
    """A function from a batch to the values by which the convolutions are ranked."""
    graph = traced(model.net)
    if graph is None:
        return lambda batch: _outputs(model, chosen, batch)
    module = fx.GraphModule(model.net, graph)
    ShapeProp(module).propagate(next(batches(model, torch.zeros(1, *model.input_shape))))  # type: ignore[no-untyped-call]
    nodes = {str(node.target): node for node in module.graph.nodes if node.op == "call_module"}
    ends = tuple(_end(module, nodes[one.name]) for one in chosen)
    output = next(node for node in module.graph.nodes if node.op == "output")
    output.args = (ends,)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _end(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The last of the steps after ``node``, one after the other, that leave every channel by itself."""
    while len(node.users) == 1:
        reader = next(iter(node.users))
        layer = module.get_submodule(str(reader.target)) if reader.op == "call_module" else None
        mixes = isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) or len(reader.all_input_nodes) > 1
        if reader.op == "output" or mixes or _channels_of(reader) != _channels_of(node):
            break
        node = reader
    return node


def _channels_of(node: fx.Node) -> int | None:
    """Channels of a step's output, None where it is no maps."""
    shape: tuple[int, ...] = getattr(node.meta.get("tensor_meta"), "shape", ())
    return int(shape[1]) if len(shape) == 4 else None


def _outputs(model: Classifier, chosen: Sequence[Convolution], batch: Tensor) -> list[Tensor]:
    caught: dict[str, Tensor] = {}

    def catching(name: str) -> Any:
        return lambda module, inputs, output: caught.__setitem__(name, output)

    handles = [model.net.get_submodule(one.name).register_forward_hook(catching(one.name)) for one in chosen]
    try:
        model.net(batch)
    finally:
        for handle in handles:
            handle.remove()
    return [caught[one.name] for one in chosen]


def pruning_order(
    classifier: Classifier, chosen: Sequence[Convolution], images: Tensor, criterion: str = "mean"
) -> list[Channel]:
    """All channels of the convolutions, the least active on ``images`` first; equal ones by number.

    Activities of different layers cannot be compared, so several layers are pruned jointly by rank: when a tenth of all
    channels is gone, it is the least active tenth of each layer.
    """
    ranked = []
    for place, (one, active) in enumerate(zip(chosen, activity(classifier, chosen, images, criterion), strict=True)):
        for rank, index in enumerate(active.argsort(stable=True).tolist()):
            ranked.append(((rank + 1) / one.channels, place, Channel(one, index)))
    return [channel for _, _, channel in sorted(ranked, key=lambda entry: entry[:2])]


@torch.no_grad()
def silence(classifier: Classifier, channels: Sequence[Channel]) -> None:
    """Prune these channels, in place (see the top of this file)."""
    for channel in channels:
        for name in channel.convolution.layers:
            layer = classifier.net.get_submodule(name)
            for array in ("weight", "bias", "running_mean"):
                value = getattr(layer, array, None)
                if value is not None:
                    value[channel.index] = 0


def answers_along(classifier: Classifier, images: Tensor, order: Sequence[Channel]) -> Iterator[Tensor]:
    """What the network answers, int64 (N,), when no channel is pruned, then the first of ``order``, then two ...

    The network behind the pruned layers is all that runs (see ``Tail``), so that the whole curve costs little more than
    one pass over the images. The classifier is untouched.
    """
    pruned = dict.fromkeys(channel.convolution for channel in order)
    masks = {name: torch.ones(one.channels) for one in pruned for name in one.layers}
    tail = Tail(classifier, tuple(masks), images)
    yield tail.answers(masks)
    for channel in order:
        for name in channel.convolution.layers:
            masks[name][channel.index] = 0
        yield tail.answers(masks)
