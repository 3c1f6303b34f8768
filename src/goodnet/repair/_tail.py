"""The rest of a network behind one layer or a few: what comes before is computed once, channel masks are tried fast."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from goodnet.core.classifier import Classifier
from goodnet.errors import NotApplicable

BATCH = 100  # so many images that what a batch leaves behind stays in the processor's cache


def batches(model: Classifier, images: Tensor) -> Iterator[Tensor]:
    """What ``model.net`` is given for uint8 or [0, 1] float images (N, C, H, W), ``BATCH`` at a time, on its device."""
    for part in images.split(BATCH):
        moved = part.to(model.device)
        floats = moved.float() / 255 if moved.dtype == torch.uint8 else moved
        yield model.preprocessing(floats).contiguous(memory_format=torch.channels_last)


def traced(net: nn.Module) -> fx.Graph | None:
    """The graph of ``net``, in which every module without children is one node; None where Python decides what runs."""
    try:
        return _LeafTracer().trace(net)
    except Exception:  # noqa: BLE001 - tracing runs somebody's forward with stand-ins: anything can come of it
        return None


class _LeafTracer(fx.Tracer):
    """Its steps are the layers that ``Classifier.layers`` names, whatever room they are of."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


class Tail:
    """Logits of fixed images for any choice of channels of some layers.

    ``Tail(model, layers, images)(masks)`` is what ``model`` answers when the output of each layer is multiplied with
    its mask. Every value that what follows the layers needs (their own output, a shortcut beside them, a second branch)
    is computed once and kept, float32, for all images; a call runs the rest alone. Masking a layer does not silence
    what follows it: for a convolution with BatchNorm behind it name both, as ``_channels`` does.

    A network that torch.fx cannot trace, or not rightly, is run in full at each call: the same numbers, slower.

    Args:
        classifier: is copied; later changes of it do not matter.
        layers: names of leaf modules as in ``Classifier.layers``, in any order; outputs (N, channels, ...).
        images: uint8 or [0, 1] float (N, C, H, W).

    Raises:
        NotApplicable: one of the layers does not run.
    """

    def __init__(self, classifier: Classifier, layers: Sequence[str], images: Tensor):
        self.layers = tuple(layers)
        self._model = copy.deepcopy(classifier).eval().requires_grad_(False)
        running = dict(self._model.layers())
        for name in self.layers:
            if name not in running:
                raise NotApplicable(f"this network has no layer {name!r} that runs; it has {', '.join(running)}")
        self._images, self._kept = images, list[tuple[Any, ...]]()
        graph = traced(self._model.net)
        self._rest: fx.GraphModule | None = None
        if graph is not None:
            before, rest = _split(self._model.net, graph, self.layers)
            with torch.no_grad():
                if self._agrees(before, rest):
                    self._rest, self._kept = rest, [before(batch) for batch in batches(self._model, images)]

    def _agrees(self, before: fx.GraphModule, rest: fx.GraphModule) -> bool:
        """Whether two images are answered as by the whole network, with the layers at full, at half and at no strength.

        It is not so where the trace missed something, such as a value that is changed in place under its old name.
        """
        images = self._images[:2]
        kept = before(next(batches(self._model, images)))
        for strength in (1.0, 0.5, 0.0):
            masks = {name: torch.full((1,), strength, device=self._model.device) for name in self.layers}
            whole = torch.cat(list(_in_full(self._model, masks, images)))
            if not (rest(*kept, *masks.values()) - whole).norm() <= 1e-3 * whole.norm():
                return False
        return True

    @property
    def runs_in_full(self) -> bool:
        """Whether the network could not be traced rightly, so that each call runs all of it."""
        return self._rest is None

    def __call__(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Logits float32 (N, K) on the CPU; ``masks``: for every layer (channels,), 1 to keep and 0 to silence."""
        return torch.cat([logits.float().cpu() for logits in self._logits(masks)])

    def answers(self, masks: Mapping[str, Tensor]) -> Tensor:
        """The largest logit's label, int64 (N,) on the CPU."""
        parts = [logits.max(1).indices for logits in self._logits(masks)]  # three times as fast as argmax
        return torch.cat(parts).cpu()

    @torch.no_grad()
    def _logits(self, masks: Mapping[str, Tensor]) -> Iterator[Tensor]:
        given = {name: masks[name].to(self._model.device, torch.float32) for name in self.layers}
        if self._rest is None:
            yield from _in_full(self._model, given, self._images)
            return
        for kept in self._kept:
            yield self._rest(*kept, *given.values())


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    return values * mask.view(-1, *(1,) * (values.ndim - 2))


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _split(net: nn.Module, graph: fx.Graph, layers: Sequence[str]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Two networks: images → values to keep; these values and the masks of ``layers`` → logits."""
    places = {node for node in graph.nodes if node.op == "call_module" and node.target in layers}
    later: set[fx.Node] = set()  # what depends on a mask
    for node in graph.nodes:
        if node.op == "output" or any(one in later or one in places for one in node.all_input_nodes):
            later.add(node)
    read = [one for node in graph.nodes if node in later for one in node.all_input_nodes]
    kept = list(dict.fromkeys(node for node in read if node not in later))

    before, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if node not in later:
            copies[node] = before.node_copy(node, copies.__getitem__)
    before.output(tuple(copies[node] for node in kept))

    after = fx.Graph()
    values = {node: after.placeholder(f"kept_{place}") for place, node in enumerate(kept)}
    masks = {name: after.placeholder(f"mask_{place}") for place, name in enumerate(layers)}
    for node in kept:
        if node not in places:  # masking makes a new tensor; the rest is copied, because what follows may work in place
            values[node] = after.call_function(_copied, (values[node],))
    for node in graph.nodes:
        if node in later:
            values[node] = after.node_copy(node, values.__getitem__)
        if node in places and node in values:
            values[node] = after.call_function(_masked, (values[node], masks[str(node.target)]))
    return fx.GraphModule(net, before), fx.GraphModule(net, after)


def _in_full(model: Classifier, masks: Mapping[str, Tensor], images: Tensor) -> Iterator[Tensor]:
    """Logits by running all of the network, with hooks that mask."""

    def masking(mask: Tensor) -> Any:
        return lambda module, inputs, output: _masked(output, mask)

    handles = [model.net.get_submodule(name).register_forward_hook(masking(mask)) for name, mask in masks.items()]
    try:
        for batch in batches(model, images):
            yield model.net(batch)
    finally:
        for handle in handles:
            handle.remove()
