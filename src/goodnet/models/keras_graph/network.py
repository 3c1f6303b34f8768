"""A Keras model as a torch module: one child per layer, run in the order of the file's graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from goodnet.errors import UnreadableModel, UnsafeFile
from goodnet.models.keras_graph._base import BUILDERS, Shape, Site, Slot
from goodnet.models.keras_graph._config import LayerConfig
from goodnet.models.keras_graph.wiring import MODELS, Call, Key, wiring_of

_MAX_NESTING = 16
_MAX_NUMBERS = 1 << 27  # in one layer's output for one image; 512 MiB of float32


@dataclass(frozen=True)
class Owner:
    """A layer that holds arrays.

    Attributes:
        path: names of the models that it lies in, then its own.
        automatic: the same in the names that Keras 3 gives by class and count.
        prefix: of its entries in the state dict of the whole network.
        slots: where its arrays go, in order.
    """

    path: tuple[str, ...]
    automatic: tuple[str, ...]
    prefix: str
    slots: tuple[Slot, ...]


class KerasNetwork(nn.Module):
    """The graph of ``model_config`` with torch layers as children, named as in Keras; maps are (N, C, H, W).

    Built on the meta device: shapes are known, no memory is taken. ``fill`` brings the arrays.

    Attributes:
        model: the entry of ``model_config`` that it was built from.
        output_shape: of one sample.
        owners: the layers that wait for arrays, also those of nested models.
        constants: state-dict entries that need no arrays.
    """

    def __init__(self, model: Mapping[str, Any], input_shape: Shape, channels_last: bool, nesting: int = 0):
        super().__init__()
        if nesting > _MAX_NESTING:
            raise UnreadableModel(f"Keras models lie more than {_MAX_NESTING} deep in one another")
        self.owners: list[Owner] = []
        self.constants: dict[str, Tensor] = {}
        self.model = model
        self._channels_last, self._nesting = channels_last, nesting
        wiring = wiring_of(model)
        self._input, self._output = wiring.input, wiring.output
        self._steps: list[tuple[str, Call]] = []  # name of the child, its call
        shapes: dict[Key, Shape] = {wiring.input: input_shape}
        built: dict[str, tuple[str, tuple[Shape, ...]]] = {}
        for call in wiring.calls:
            entry, inputs = wiring.layers[call.layer], tuple(shapes[key] for key in call.inputs)
            if call.layer not in built:
                built[call.layer] = self._add(call.layer, wiring.automatic[call.layer], entry, inputs), inputs
            child, first_inputs = built[call.layer]
            if first_inputs != inputs:
                raise UnreadableModel(f"Keras layer {call.layer!r} is used for inputs of different shapes")
            shapes[call.output] = _output_shape(call.layer, self.get_submodule(child), inputs)
            self._steps.append((child, call))
        self.output_shape = shapes[wiring.output]

    def forward(self, images: Tensor) -> Tensor:
        values = {self._input: images}
        for child, call in self._steps:
            values[call.output] = self.get_submodule(child)(*(values[key] for key in call.inputs))
            for key in call.done:
                del values[key]
        return values[self._output]

    def _add(self, name: str, automatic: str, entry: Mapping[str, Any], shapes: tuple[Shape, ...]) -> str:
        """Build the child for one layer; its name here, which differs where torch forbids the layer's own."""
        child = name.replace(".", "_") or "layer"
        while hasattr(self, child):
            child += "_"
        layer = LayerConfig(
            str(entry["class_name"]), name, entry["config"] if isinstance(entry["config"], dict) else {}
        )
        if layer.kind in MODELS:
            inner = KerasNetwork(entry, shapes[0], self._channels_last, self._nesting + 1)
            self.add_module(child, inner)
            for owner in inner.owners:
                path, automatic_path = (name, *owner.path), (automatic, *owner.automatic)
                self.owners.append(Owner(path, automatic_path, f"{child}.{owner.prefix}", owner.slots))
            self.constants |= {f"{child}.{key}": value for key, value in inner.constants.items()}
            return child
        made = _builder(layer)(layer, Site(shapes, self._channels_last))
        self.add_module(child, made.module)
        if made.slots:
            self.owners.append(Owner((name,), (automatic,), f"{child}.", made.slots))
        self.constants |= {f"{child}.{key}": value for key, value in made.constants.items()}
        return child

    def drop_final_activation(self) -> str:
        """Take a softmax or sigmoid off the end, so that logits come out; what was taken off, or ""."""
        child, call = self._steps[-1]
        if sum(name == child for name, _ in self._steps) > 1:
            return ""
        last = self.get_submodule(child)
        if isinstance(last, KerasNetwork):
            return last.drop_final_activation()
        if isinstance(last, nn.Softmax | nn.Sigmoid):
            setattr(self, child, nn.Identity())
            return type(last).__name__.lower()
        if isinstance(last, nn.Sequential) and isinstance(last[-1], nn.Softmax | nn.Sigmoid):
            name = type(last[-1]).__name__.lower()
            last[-1] = nn.Identity()
            return name
        return ""


def _builder(layer: LayerConfig) -> Any:
    if layer.kind == "Lambda":
        raise UnsafeFile(
            f"Keras layer {layer.name!r} is a Lambda, code inside the model file; nothing was executed. "
            "Ask for a model without Lambda layers, or for its weights alone",
            findings=(f"Lambda layer {layer.name}",),
        )
    if layer.kind not in BUILDERS:
        raise layer.refuse(f"this kind of layer is not supported; supported: {', '.join(sorted(BUILDERS))}")
    return BUILDERS[layer.kind]


def _output_shape(name: str, module: nn.Module, shapes: tuple[Shape, ...]) -> Shape:
    """Of one sample; nothing is computed."""
    output = module.eval()(*(torch.empty(1, *shape, device="meta") for shape in shapes))
    if output.numel() > _MAX_NUMBERS:
        raise UnreadableModel(
            f"Keras layer {name!r} would give {output.numel():,} numbers for one image; it is refused"
        )
    return tuple(output.shape[1:])
