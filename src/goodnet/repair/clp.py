"""CLP: prune the channels that can amplify a small change of the image the most. No data."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotApplicable
from goodnet.repair._base import Fixed, Repairer, repairers

Pair = tuple[str, nn.Conv2d, nn.BatchNorm2d]
"""The name of a BatchNorm, the convolution whose output it is given, and itself."""


@repairers.register(
    Card(
        name="clp",
        version=1,
        needs=Needs.MODEL,
        source="Zheng et al., Data-free Backdoor Removal based on Channel Lipschitzness, ECCV 2022",
        summary="prunes channels whose Lipschitz bound stands out in their layer; needs no data",
        assumes=("BatchNorm after convolutions", "the trigger rides on few channels"),
    )
)
@dataclass(frozen=True, kw_only=True)
class Clp(Repairer):
    """Silence the channels with an outstanding upper bound of their Lipschitz constant.

    What it does: the bound of a channel is the largest singular value of its kernel, as a matrix (inputs, k * k), times
    |weight| / deviation of the BatchNorm behind it. Channels above mean + ``deviations`` * standard deviation of their
    layer get weight and bias 0 in the BatchNorm.
    Needs: the model alone, with BatchNorm right behind convolutions. Which BatchNorm is given whose output is seen in a
    forward pass; the published code takes the convolution defined before it, which is another one where BatchNorm
    comes first (PreAct nets).
    Limits: in a layer of ten channels or fewer none can be 3 standard deviations above the mean. Nothing is checked
    on images: accuracy may fall.
    Source: Zheng et al., Data-free Backdoor Removal based on Channel Lipschitzness, ECCV 2022. BatchNorm's epsilon is
    left out, as there.
    """

    deviations: float = param(
        3.0, low=0.0, doc="standard deviations above the layer's mean from which it is pruned (u)"
    )

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        assert defender.model is not None
        pairs = convolutions_before_batchnorm(defender.model)
        if not pairs:
            raise NotApplicable("clp needs a convolution whose output goes straight into a BatchNorm; there is none")
        pruned: dict[str, list[int]] = {}
        for place, (name, convolution, norm) in enumerate(pairs, start=1):
            bounds = channel_bounds(convolution, norm)
            outstanding = bounds > bounds.mean() + self.deviations * bounds.std()
            with torch.no_grad():
                norm.weight[outstanding] = 0
                norm.bias[outstanding] = 0
            if outstanding.any():
                pruned[name] = outstanding.nonzero().flatten().tolist()
            run.progress(place / len(pairs), f"layer {place} of {len(pairs)}")
        return Fixed(
            model=defender.model,
            notes={"channels_pruned": float(sum(map(len, pruned.values())))},
            counts={"layers": len(pairs), "channels": sum(norm.num_features for _, _, norm in pairs)},
            evidence={"pruned": pruned},
        )


def convolutions_before_batchnorm(model: Classifier) -> list[Pair]:
    """The pairs in execution order: the very tensor that a convolution gives is what the BatchNorm is given."""
    given: list[tuple[nn.Conv2d, Tensor, int]] = []
    pairs: list[Pair] = []
    layers = model.layers()
    names = {layer: name for name, layer in layers}

    def after(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        given.append((layer, output, output._version))  # the tensor is kept, so that no other can take its place

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm2d)
        for convolution, output, version in given:
            # an activation that works in place gives the same tensor, changed: its version has moved on
            if inputs[0] is output and output._version == version:
                pairs.append((names[layer], convolution, layer))

    handles = [layer.register_forward_hook(after) for layer in names if isinstance(layer, nn.Conv2d)]
    handles += [
        layer.register_forward_pre_hook(before)
        for layer in names
        if isinstance(layer, nn.BatchNorm2d) and layer.affine and layer.track_running_stats
    ]
    try:
        with torch.no_grad():
            model(torch.zeros(1, *model.input_shape, device=model.device))
    finally:
        for handle in handles:
            handle.remove()
    return pairs


@torch.no_grad()
def channel_bounds(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Upper bounds (out channels,) of the Lipschitz constants of a convolution's channels behind its BatchNorm."""
    assert norm.running_var is not None
    kernels = convolution.weight.double().flatten(2)  # (out, in, k * k): one matrix for each channel, all at a time
    deviation = norm.running_var.double().sqrt()
    gain = torch.where(deviation > 0, norm.weight.double().abs() / deviation, 0)  # 0: it never changes, it is dead
    bounds: Tensor = torch.linalg.matrix_norm(kernels, ord=2) * gain
    return bounds
