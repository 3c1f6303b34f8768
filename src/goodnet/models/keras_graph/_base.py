"""From one Keras layer to torch modules: the contract of the builders and the table that they fill."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from goodnet.models.keras_graph._config import LayerConfig

Shape = tuple[int, ...]  # of one sample, in torch order: (C, H, W) or (D,)


@dataclass(frozen=True)
class Slot:
    """Where the next array of a layer goes: the key in the module's state dict, and how the array is turned."""

    key: str
    turn: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Built:
    """A torch module for one Keras layer.

    Attributes:
        module: takes as many tensors as the layer has inputs.
        slots: one for each array of the layer, in the order of Keras.
        constants: state-dict entries that the file does not hold.
    """

    module: nn.Module
    slots: tuple[Slot, ...] = ()
    constants: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """Where a layer stands.

    Attributes:
        shapes: of its inputs, in torch order.
        channels_last: whether the file's axes are (H, W, C), as usual, or (C, H, W).
    """

    shapes: tuple[Shape, ...]
    channels_last: bool

    @property
    def shape(self) -> Shape:
        return self.shapes[0]


Builder = Callable[[LayerConfig, Site], Built]
BUILDERS: dict[str, Builder] = {}


def builds(*kinds: str) -> Callable[[Builder], Builder]:
    """Function decorator: this builder makes the Keras layers of these class names."""

    def decorate(builder: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(kinds, builder))
        return builder

    return decorate


def chain(parts: Mapping[str, nn.Module | None]) -> nn.Sequential:
    """The parts that are not None, one after the other, under these names."""
    return nn.Sequential(OrderedDict((name, part) for name, part in parts.items() if part is not None))


def need_maps(layer: LayerConfig, site: Site) -> tuple[int, int, int]:
    """The (C, H, W) of the only input, or an error if it is flat."""
    if len(site.shape) != 3:
        raise layer.refuse(f"needs images or maps, its input has {len(site.shape)} axes")
    channels, height, width = site.shape
    return channels, height, width


def torch_axis(layer: LayerConfig, site: Site, axis: int) -> int:
    """The axis of a batch in torch order that Keras calls ``axis``."""
    rank = len(site.shape) + 1
    if isinstance(axis, bool) or not isinstance(axis, int) or not -rank <= axis < rank or axis % rank == 0:
        raise layer.refuse(f"axis {axis!r} is not supported")
    turned = site.channels_last and rank == 4
    return {1: 2, 2: 3, 3: 1}[axis % rank] if turned else axis % rank


def keep(array: Tensor) -> Tensor:
    """The array as it is."""
    return array


def transpose(array: Tensor) -> Tensor:
    """A Dense kernel (in, out) as torch has it."""
    return array.t()


def zero() -> Tensor:
    """What BatchNorm counts; nothing reads it here."""
    return torch.zeros((), dtype=torch.int64, device="cpu")  # also while a network is built on the meta device
