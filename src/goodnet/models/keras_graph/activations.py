"""Keras activations, as names inside other layers and as layers of their own."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from goodnet.models.keras_graph._base import Built, Site, Slot, builds, keep, torch_axis
from goodnet.models.keras_graph._config import LayerConfig

# softmax is over the channels, axis 1 in torch
_BY_NAME: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softmax": lambda: nn.Softmax(1),
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "swish": nn.SiLU,
    "silu": nn.SiLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "hard_swish": nn.Hardswish,
    "hard_silu": nn.Hardswish,
    "mish": nn.Mish,
}


def activation_of(layer: LayerConfig, site: Site) -> nn.Module | None:
    """The module for the setting ``activation`` of a layer; None for linear.

    Raises:
        UnreadableModel: an activation that is not known; it is named.
    """
    written: Any = layer.values.get("activation")
    if written in (None, "linear"):
        return None
    if isinstance(written, Mapping):  # a layer as activation
        inner = LayerConfig(str(written.get("class_name")), layer.name, written.get("config") or {})
        if inner.kind in ("ReLU", "LeakyReLU", "ELU", "Softmax"):
            return _LAYERS[inner.kind](inner, site).module
        raise layer.refuse(f"activation {inner.kind} is not supported")
    if written not in _BY_NAME:
        raise layer.refuse(f"activation {written!r} is not supported; supported: linear, {', '.join(_BY_NAME)}")
    if written == "softmax" and len(site.shape) == 3 and not site.channels_last:
        raise layer.refuse("softmax over columns is not supported")
    return _BY_NAME[written]()


@builds("Activation")
def _activation(layer: LayerConfig, site: Site) -> Built:
    return Built(activation_of(layer, site) or nn.Identity())


class BoundedReLU(nn.Module):
    """Keras ReLU with its settings: 0 or a slope below ``threshold``, never above ``largest``."""

    def __init__(self, largest: float, slope: float, threshold: float):
        super().__init__()
        self.largest, self.slope, self.threshold = largest, slope, threshold

    def forward(self, values: Tensor) -> Tensor:
        below = self.slope * (values - self.threshold)
        return torch.where(values >= self.threshold, values.clamp(max=self.largest), below)


@builds("ReLU")
def _relu(layer: LayerConfig, site: Site) -> Built:
    largest = float("inf") if layer.values.get("max_value") is None else layer.number("max_value", 0)
    slope, threshold = layer.number("negative_slope", 0), layer.number("threshold", 0)
    if slope == threshold == 0 and largest in (6, float("inf")):
        return Built(nn.ReLU6() if largest == 6 else nn.ReLU())
    return Built(BoundedReLU(largest, slope, threshold))


@builds("LeakyReLU")
def _leaky_relu(layer: LayerConfig, site: Site) -> Built:
    old = layer.number("alpha", 0.3)  # Keras 2
    return Built(nn.LeakyReLU(layer.number("negative_slope", old)))


@builds("ELU")
def _elu(layer: LayerConfig, site: Site) -> Built:
    return Built(nn.ELU(layer.number("alpha", 1.0)))


@builds("Softmax")
def _softmax(layer: LayerConfig, site: Site) -> Built:
    axis = layer.values.get("axis", -1)
    return Built(nn.Softmax(torch_axis(layer, site, axis[0] if isinstance(axis, list) and len(axis) == 1 else axis)))


class PReLU(nn.Module):
    """A learned slope below zero for every number of a sample, or shared along axes where its size is 1."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.slope = nn.Parameter(torch.empty(shape))

    def forward(self, values: Tensor) -> Tensor:
        return values.clamp(min=0) + self.slope * values.clamp(max=0)


@builds("PReLU")
def _prelu(layer: LayerConfig, site: Site) -> Built:
    shared = [torch_axis(layer, site, axis) for axis in layer.values.get("shared_axes") or ()]
    shape = tuple(1 if axis in shared else side for axis, side in enumerate(site.shape, start=1))
    turn = _turn_slopes if site.channels_last and len(shape) == 3 else keep
    return Built(PReLU(shape), (Slot("slope", turn),))


def _turn_slopes(array: Tensor) -> Tensor:
    """(h, w, channels) → (channels, h, w)."""
    return array.permute(2, 0, 1)


_LAYERS = {"ReLU": _relu, "LeakyReLU": _leaky_relu, "ELU": _elu, "Softmax": _softmax}
