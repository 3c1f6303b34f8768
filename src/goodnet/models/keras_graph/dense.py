"""Keras Dense, BatchNormalization and the layers that scale their input."""

import torch
from torch import Tensor, nn

from goodnet.models.keras_graph._base import Built, Site, Slot, builds, chain, keep, torch_axis, transpose, zero
from goodnet.models.keras_graph._config import LayerConfig
from goodnet.models.keras_graph.activations import activation_of
from goodnet.models.keras_graph.shaping import to_file_order, to_torch_order


class LinearOnMaps(nn.Linear):
    """A linear layer along the last axis of the file's order, for every pixel alike."""

    def __init__(self, inputs: int, outputs: int, bias: bool, channels_last: bool):
        super().__init__(inputs, outputs, bias)
        self.channels_last = channels_last

    def forward(self, values: Tensor) -> Tensor:
        return to_torch_order(super().forward(to_file_order(values, self.channels_last)), self.channels_last)


@builds("Dense")
def _dense(layer: LayerConfig, site: Site) -> Built:
    units, bias = layer.integer("units"), layer.flag("use_bias", True)
    if len(site.shape) == 1:
        linear = nn.Linear(site.shape[0], units, bias)
    else:
        last = torch_axis(layer, site, -1)
        linear = LinearOnMaps(site.shape[last - 1], units, bias, site.channels_last)
    slots = (Slot("linear.weight", transpose), Slot("linear.bias", keep))
    return Built(chain({"linear": linear, "activation": activation_of(layer, site)}), slots[: 1 + bias])


@builds("BatchNormalization", "SyncBatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2")
def _batch_normalization(layer: LayerConfig, site: Site) -> Built:
    axis = layer.values.get("axis", -1)
    if torch_axis(layer, site, axis[0] if isinstance(axis, list) and len(axis) == 1 else axis) != 1:
        raise layer.refuse(f"axis {axis!r} is not that of the channels")
    features, flat = site.shape[0], len(site.shape) == 1
    epsilon, momentum = layer.number("epsilon", 1e-3), 1 - layer.number("momentum", 0.99)
    module = nn.BatchNorm1d(features, epsilon, momentum) if flat else nn.BatchNorm2d(features, epsilon, momentum)
    constants, slots = {"num_batches_tracked": zero()}, []
    for key, setting, value in (("weight", "scale", 1.0), ("bias", "center", 0.0)):
        if layer.flag(setting, True):
            slots.append(Slot(key, keep))
        else:
            constants[key] = torch.full((features,), value, device="cpu")
    return Built(module, (*slots, Slot("running_mean", keep), Slot("running_var", keep)), constants)


class Rescaling(nn.Module):
    """Times ``scale``, plus ``offset``; one number, or one per channel."""

    def __init__(self, scale: tuple[float, ...], offset: tuple[float, ...]):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, values: Tensor) -> Tensor:
        shape = (-1, *(1 for _ in values.shape[2:]))
        return values * values.new_tensor(self.scale).view(shape) + values.new_tensor(self.offset).view(shape)


@builds("Rescaling")
def _rescaling(layer: LayerConfig, site: Site) -> Built:
    return Built(Rescaling(layer.numbers("scale", 1.0), layer.numbers("offset", 0.0)))


class Normalization(nn.Module):
    """Minus the mean, by the standard deviation, per channel; both are read from the file."""

    def __init__(self, channels: int):
        super().__init__()
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.empty(channels))
        self.register_buffer("variance", torch.empty(channels))

    def forward(self, values: Tensor) -> Tensor:
        shape = (-1, *(1 for _ in values.shape[2:]))
        return (values - self.mean.view(shape)) / self.variance.sqrt().clamp(min=1e-7).view(shape)


@builds("Normalization")
def _normalization(layer: LayerConfig, site: Site) -> Built:
    axis = layer.values.get("axis", -1)
    axes = axis if isinstance(axis, list) else [axis]
    if len(axes) != 1 or torch_axis(layer, site, axes[0]) != 1 or layer.flag("invert", False):
        raise layer.refuse("only normalization of every channel is supported")
    channels = site.shape[0]
    module = Normalization(channels)
    if layer.values.get("mean") is None:
        # the last of the three arrays counts what was seen
        return Built(module, (Slot("mean", torch.flatten), Slot("variance", torch.flatten), Slot("", keep)))
    constants = {
        key: torch.tensor(layer.numbers(key, 0.0), device="cpu").expand(channels).clone()
        for key in ("mean", "variance")
    }
    return Built(module, (), constants)
