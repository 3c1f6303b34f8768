"""Keras layers that move numbers about without weights, and those that do nothing at inference."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.models.keras_graph._base import Built, Shape, Site, builds, need_maps, torch_axis
from goodnet.models.keras_graph._config import LayerConfig


def to_file_order(values: Tensor, channels_last: bool) -> Tensor:
    """A batch as the file's axes have it: maps (N, C, H, W) → (N, H, W, C) where channels are last there."""
    return values.permute(0, 2, 3, 1) if channels_last and values.ndim == 4 else values


def to_torch_order(values: Tensor, channels_last: bool) -> Tensor:
    """The inverse of ``to_file_order``."""
    return values.permute(0, 3, 1, 2) if channels_last and values.ndim == 4 else values


class Reshape(nn.Module):
    """To ``shape`` in the order in which the file's axes run."""

    def __init__(self, shape: Shape, channels_last: bool):
        super().__init__()
        self.shape, self.channels_last = shape, channels_last

    def forward(self, values: Tensor) -> Tensor:
        ordered = to_file_order(values, self.channels_last)
        return to_torch_order(ordered.reshape(len(values), *self.shape), self.channels_last)


@builds("Flatten")
def _flatten(layer: LayerConfig, site: Site) -> Built:
    # told that channels are first, Keras still flattens as (H, W, C); told nothing, it takes the axes as they come
    as_last = site.channels_last or layer.values.get("data_format") == "channels_first"
    return Built(Reshape((math.prod(site.shape),), as_last))


@builds("Reshape")
def _reshape(layer: LayerConfig, site: Site) -> Built:
    target = layer.values.get("target_shape")
    if (
        not isinstance(target, list | tuple)
        or len(target) not in (1, 3)
        or not all(type(side) is int for side in target)
    ):
        raise layer.refuse(f"target_shape must have 1 or 3 whole numbers, got {target!r}")
    return Built(Reshape(tuple(target), site.channels_last))


class Permute(nn.Module):
    """Axes of a batch in another order; ``axes`` includes the batch."""

    def __init__(self, axes: tuple[int, ...]):
        super().__init__()
        self.axes = axes

    def forward(self, values: Tensor) -> Tensor:
        return values.permute(self.axes)


@builds("Permute")
def _permute(layer: LayerConfig, site: Site) -> Built:
    dims = layer.values.get("dims")
    if not isinstance(dims, list | tuple) or sorted(dims) != list(range(1, len(site.shape) + 1)):
        raise layer.refuse(f"dims {dims!r} is no order of its axes")
    into = {torch_axis(layer, site, place): torch_axis(layer, site, axis) for place, axis in enumerate(dims, start=1)}
    return Built(Permute((0, *(into[place] for place in sorted(into)))))


@builds("ZeroPadding2D")
def _zero_padding(layer: LayerConfig, site: Site) -> Built:
    need_maps(layer, site)
    return Built(nn.ZeroPad2d(layer.border("padding")))


class Crop(nn.Module):
    """Without ``border`` (left, right, top, bottom) pixels at the edges."""

    def __init__(self, border: tuple[int, int, int, int]):
        super().__init__()
        self.border = border

    def forward(self, maps: Tensor) -> Tensor:
        left, right, top, bottom = self.border
        return maps[:, :, top : maps.shape[2] - bottom, left : maps.shape[3] - right]


@builds("Cropping2D")
def _cropping(layer: LayerConfig, site: Site) -> Built:
    need_maps(layer, site)
    return Built(Crop(layer.border("cropping")))


class Upsample(nn.Module):
    """Maps ``factors`` (vertical, horizontal) times as large."""

    def __init__(self, factors: tuple[int, int], mode: str):
        super().__init__()
        self.factors, self.mode = factors, mode

    def forward(self, maps: Tensor) -> Tensor:
        size = (maps.shape[2] * self.factors[0], maps.shape[3] * self.factors[1])
        return F.interpolate(maps, size, mode=self.mode, align_corners=None if self.mode == "nearest" else False)


@builds("UpSampling2D")
def _up_sampling(layer: LayerConfig, site: Site) -> Built:
    need_maps(layer, site)
    mode = layer.choice("interpolation", "nearest", ("nearest", "bilinear"))
    return Built(Upsample(layer.pair("size", 2), mode))


class Merge(nn.Module):
    """Several tensors into one, element by element."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            match self.kind:
                case "Add" | "Average":
                    first = first + other
                case "Subtract":
                    first = first - other
                case "Multiply":
                    first = first * other
                case "Maximum":
                    first = torch.maximum(first, other)
                case "Minimum":
                    first = torch.minimum(first, other)
        return first / (1 + len(others)) if self.kind == "Average" else first


@builds("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
def _merge(layer: LayerConfig, site: Site) -> Built:
    if len({len(shape) for shape in site.shapes}) > 1:
        raise layer.refuse("its inputs have different numbers of axes")
    if layer.kind == "Subtract" and len(site.shapes) != 2:
        raise layer.refuse("needs two inputs")
    return Built(Merge(layer.kind))


class Concatenate(nn.Module):
    """Tensors one after the other along an axis of the batch."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        return torch.cat((first, *others), self.axis)


@builds("Concatenate")
def _concatenate(layer: LayerConfig, site: Site) -> Built:
    return Built(Concatenate(torch_axis(layer, site, layer.values.get("axis", -1))))


@builds("Dropout")
def _dropout(layer: LayerConfig, site: Site) -> Built:
    return Built(nn.Dropout(layer.number("rate", 0.0)))


@builds(
    "ActivityRegularization",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "RandomBrightness",
    "RandomContrast",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
    "SpatialDropout2D",
)
def _nothing(layer: LayerConfig, site: Site) -> Built:
    return Built(nn.Identity())
