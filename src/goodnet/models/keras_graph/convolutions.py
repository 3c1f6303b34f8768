"""Keras convolutions and pooling; padding "same" is uneven where strides ask for it, as TensorFlow has it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.models.keras_graph._base import Built, Site, Slot, builds, chain, keep, need_maps
from goodnet.models.keras_graph._config import LayerConfig
from goodnet.models.keras_graph.activations import activation_of

Border = tuple[int, int, int, int]  # left, right, top, bottom, as torch pads


def _same_border(
    sides: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Border:
    """How much TensorFlow pads (height, width) for "same": the odd pixel goes below and to the right."""
    ends = []
    for side, size, step, spread in zip(sides, kernel, stride, dilation, strict=True):
        total = max((-(-side // step) - 1) * step + (size - 1) * spread + 1 - side, 0)
        ends.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = ends
    return left, right, top, bottom


def _border(
    layer: LayerConfig,
    sides: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Border:
    same = layer.choice("padding", "valid", ("valid", "same")) == "same"
    return _same_border(sides, kernel, stride, dilation) if same else (0, 0, 0, 0)


def _convolution(
    layer: LayerConfig, site: Site, filters: int, groups: int, bias: bool
) -> tuple[nn.Module | None, nn.Conv2d]:
    """A padding module, where torch cannot pad evenly by itself, and the convolution."""
    channels, height, width = need_maps(layer, site)
    kernel, stride = layer.pair("kernel_size"), layer.pair("strides", 1)
    dilation = layer.pair("dilation_rate", 1)
    left, right, top, bottom = _border(layer, (height, width), kernel, stride, dilation)
    even = left == right and top == bottom
    return (
        None if even else nn.ZeroPad2d((left, right, top, bottom)),
        nn.Conv2d(channels, filters, kernel, stride, (top, left) if even else 0, dilation, groups, bias),
    )


def _turn_kernel(array: Tensor) -> Tensor:
    """(h, w, in, out) → (out, in, h, w)."""
    return array.permute(3, 2, 0, 1)


def _turn_depthwise(array: Tensor) -> Tensor:
    """(h, w, in, multiplier) → (in * multiplier, 1, h, w)."""
    height, width, channels, multiplier = array.shape
    return array.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)


@builds("Conv2D", "Convolution2D")
def _conv_2d(layer: LayerConfig, site: Site) -> Built:
    bias = layer.flag("use_bias", True)
    pad, convolution = _convolution(layer, site, layer.integer("filters"), layer.integer("groups", 1), bias)
    slots = [Slot("convolution.weight", _turn_kernel), Slot("convolution.bias", keep)]
    parts = {"padding": pad, "convolution": convolution, "activation": activation_of(layer, site)}
    return Built(chain(parts), tuple(slots[: 1 + bias]))


@builds("DepthwiseConv2D")
def _depthwise_conv_2d(layer: LayerConfig, site: Site) -> Built:
    bias, channels = layer.flag("use_bias", True), need_maps(layer, site)[0]
    filters = channels * layer.integer("depth_multiplier", 1)
    pad, convolution = _convolution(layer, site, filters, channels, bias)
    slots = [Slot("convolution.weight", _turn_depthwise), Slot("convolution.bias", keep)]
    parts = {"padding": pad, "convolution": convolution, "activation": activation_of(layer, site)}
    return Built(chain(parts), tuple(slots[: 1 + bias]))


@builds("SeparableConv2D", "SeparableConvolution2D")
def _separable_conv_2d(layer: LayerConfig, site: Site) -> Built:
    bias, channels = layer.flag("use_bias", True), need_maps(layer, site)[0]
    between = channels * layer.integer("depth_multiplier", 1)
    pad, depthwise = _convolution(layer, site, between, channels, bias=False)
    pointwise = nn.Conv2d(between, layer.integer("filters"), 1, bias=bias)
    slots = [
        Slot("depthwise.weight", _turn_depthwise),
        Slot("pointwise.weight", _turn_kernel),
        Slot("pointwise.bias", keep),
    ]
    parts = {"padding": pad, "depthwise": depthwise, "pointwise": pointwise, "activation": activation_of(layer, site)}
    return Built(chain(parts), tuple(slots[: 2 + bias]))


class PaddedAveragePool(nn.Module):
    """Average pooling in which the padding does not count."""

    def __init__(self, size: tuple[int, int], stride: tuple[int, int], border: Border):
        super().__init__()
        self.size, self.stride, self.border = size, stride, border

    def forward(self, maps: Tensor) -> Tensor:
        inside = F.pad(torch.ones_like(maps[:1, :1]), self.border)
        share = F.avg_pool2d(inside, self.size, self.stride)  # of every window that lies on the image
        return F.avg_pool2d(F.pad(maps, self.border), self.size, self.stride) / share


def _pooling(layer: LayerConfig, site: Site) -> tuple[tuple[int, int], tuple[int, int], Border]:
    size = layer.pair("pool_size", 2)
    stride = size if layer.values.get("strides") is None else layer.pair("strides")
    return size, stride, _border(layer, need_maps(layer, site)[1:], size, stride, (1, 1))


@builds("MaxPooling2D", "MaxPool2D")
def _max_pooling(layer: LayerConfig, site: Site) -> Built:
    size, stride, border = _pooling(layer, site)
    pad = nn.ConstantPad2d(border, float("-inf")) if any(border) else None
    return Built(chain({"padding": pad, "pooling": nn.MaxPool2d(size, stride)}) if pad else nn.MaxPool2d(size, stride))


@builds("AveragePooling2D", "AvgPool2D")
def _average_pooling(layer: LayerConfig, site: Site) -> Built:
    size, stride, border = _pooling(layer, site)
    return Built(PaddedAveragePool(size, stride, border) if any(border) else nn.AvgPool2d(size, stride))


class GlobalPool(nn.Module):
    """The mean or the largest of every map; (N, C), or (N, C, 1, 1)."""

    def __init__(self, largest: bool, keep_axes: bool):
        super().__init__()
        self.largest, self.keep_axes = largest, keep_axes

    def forward(self, maps: Tensor) -> Tensor:
        return maps.amax((2, 3), self.keep_axes) if self.largest else maps.mean((2, 3), self.keep_axes)


@builds("GlobalAveragePooling2D", "GlobalAvgPool2D", "GlobalMaxPooling2D", "GlobalMaxPool2D")
def _global_pooling(layer: LayerConfig, site: Site) -> Built:
    need_maps(layer, site)
    return Built(GlobalPool("Max" in layer.kind, layer.flag("keepdims", False)))
