"""Which architecture do these arrays belong to? Found by names, else by shapes in order, up to the kernels' layout."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from goodnet.errors import ParameterError, UnknownArchitecture
from goodnet.models import architectures
from goodnet.models.architectures import Architecture
from goodnet.models.formats import ModelFile

ImageShape = tuple[int, int, int]

# what libraries call the parameters of convolutions, linear layers and BatchNorm
_ROLES = {
    "weight": ("weight", "kernel", "W", "w", "gamma"),
    "bias": ("bias", "b", "beta"),
    "running_mean": ("running_mean", "moving_mean", "mean"),
    "running_var": ("running_var", "moving_variance", "variance", "var"),
}
_ROLE_OF = {written: role for role, names in _ROLES.items() for written in names}
# sides of square images that are tried where the weights leave several open, likely ones first
_SIDES = (32, 28, 224, 64, 48, 96, 112, 128, 160, 192, 256, 299, *range(8, 513))


@dataclass(frozen=True)
class Match:
    """A network with the file's weights in it.

    Attributes:
        net: on the CPU.
        architecture: its name with options.
        input_shape: (C, H, W).
        num_classes: K.
        notes: how it was found and what was assumed.
    """

    net: Architecture
    architecture: str
    input_shape: ImageShape
    num_classes: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Layer:
    """The arrays of one layer by role, in torch layout."""

    name: str
    arrays: Mapping[str, Tensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {role: tuple(array.shape) for role, array in self.arrays.items()}

    @property
    def kind(self) -> str:
        weight = self.arrays.get("weight")
        return {4: "convolution", 2: "linear", 1: "normalization"}.get(-1 if weight is None else weight.ndim, "other")


@dataclass(frozen=True)
class _Fit:
    """How an architecture fits: ``pairs`` when it does, else how it first does not."""

    net: Architecture  # without weights
    input_shape: ImageShape
    num_classes: int
    architecture: str
    layout: str
    pairs: tuple[tuple[_Layer, _Layer], ...] = ()  # (in the net, in the file)
    by_names: bool = False
    agreeing: int = 0
    mismatch: str = ""
    another_size: bool = False  # of image might help


def find(path: Path, file: ModelFile, *, arch: str | None = None, input_shape: ImageShape | None = None) -> Match:
    """The network that the arrays of ``file`` belong to, with these arrays in it.

    Args:
        path: for messages.
        file: what the reader gave.
        arch: name of the architecture, options may follow; None to try all.
        input_shape: (C, H, W); None to derive it from the shapes.

    Raises:
        UnknownArchitecture: nothing fits, or several do; the message says which come near and what to pass.
        UnknownName: no architecture ``arch``.
    """
    wanted = architectures.all_architectures() if arch is None else (architectures.get(architectures.parse(arch)[0]),)
    told = architectures.parse(arch)[1] if arch else {}
    tried = []
    for layout in (file.layout,) if file.layout else ("torch", "keras"):
        layers = _layers(file.arrays, layout)
        tried += [_fit(candidate, layers, layout, told, input_shape) for candidate in wanted]
    fits = [fit for fit in tried if fit is not None]
    good = [fit for fit in fits if fit.pairs]
    good = [fit for fit in good if fit.by_names] or good
    if len(good) != 1:
        raise UnknownArchitecture(_message(path, good, fits, arch))
    return _filled(good[0])


def _layers(arrays: Mapping[str, Tensor], layout: str) -> list[_Layer]:
    """The arrays grouped by layer, in the order of the file."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        owner, _, written = name.replace("/", ".").rpartition(".")
        if written != "num_batches_tracked":
            grouped.setdefault(owner, {})[_ROLE_OF.get(written, written)] = array
    return [_Layer(owner, _to_torch(_numbered_roles(found), layout)) for owner, found in grouped.items()]


def _numbered_roles(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keras 3 numbers the arrays of a layer: kernel and bias, or gamma, beta, mean and variance."""
    if all(name.isdecimal() for name in found):
        return dict(zip(_ROLES, found.values(), strict=False))
    return found


def _to_torch(found: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    if layout != "keras":
        return found
    turns = {4: (3, 2, 0, 1), 2: (1, 0)}
    return {role: array.permute(turns[array.ndim]) if array.ndim in turns else array for role, array in found.items()}


def _fit(
    candidate: type[Architecture],
    layers: list[_Layer],
    layout: str,
    told: Mapping[str, int],
    input_shape: ImageShape | None,
) -> _Fit | None:
    """How ``candidate``, with the options and the image size that suit it best, fits; None where it cannot be built."""
    kernels = [layer.shapes["weight"] for layer in layers if layer.kind == "convolution"]
    heads = [layer.shapes["weight"][0] for layer in layers if layer.kind == "linear"]
    if not kernels or not heads:
        return None
    options = {**candidate.infer_options(kernels), **told}
    channels = min(kernel[1] for kernel in kernels)
    usual = input_shape or (channels, *candidate.default_input_shape[1:])
    shapes = dict.fromkeys([usual, *(() if input_shape else ((channels, side, side) for side in _SIDES))])
    best: _Fit | None = None
    for num_classes in dict.fromkeys(reversed(heads)):  # the head is the last linear layer, if the file keeps the order
        for shape in shapes:
            try:
                with torch.device("meta"):  # shapes only, however large
                    net = candidate(num_classes=num_classes, input_shape=shape, **options)
            except ParameterError:
                continue
            fit = _compare(
                net, layers, _Fit(net, shape, num_classes, architectures.text(candidate.name, options), layout)
            )
            if best is None or fit.agreeing > best.agreeing:
                best = fit
            if fit.pairs:
                return fit
            if not fit.another_size:
                break
    return best


def _compare(net: Architecture, layers: list[_Layer], fit: _Fit) -> _Fit:
    """``fit`` with the layers paired by name, else in order within their kind; or with the first mismatch."""
    wanted = _layers(net.state_dict(), "torch")
    ours, theirs = {_plain(layer.name): layer for layer in wanted}, {_plain(layer.name): layer for layer in layers}
    by_names = len(ours) == len(wanted) and len(theirs) == len(layers) and ours.keys() == theirs.keys()
    waiting: dict[str, list[_Layer]] = {}
    for layer in layers:
        waiting.setdefault(layer.kind, []).append(layer)
    pairs: list[tuple[_Layer, _Layer]] = []
    for layer in wanted:
        queue = waiting.get(layer.kind, [])
        other = theirs[_plain(layer.name)] if by_names else queue.pop(0) if queue else None
        if other is None or other.shapes != layer.shapes:
            has = "nothing" if other is None else f"{other.name} {_text(other.shapes)}"
            mismatch = f"{layer.name} wants {_text(layer.shapes)}, the file has {has}"
            another_size = layer.name in net.flat_inputs and other is not None and _same_outputs(layer, other)
            return replace(fit, agreeing=len(pairs), mismatch=mismatch, another_size=another_size)
        pairs.append((layer, other))
    left = [] if by_names else [layer.name for queue in waiting.values() for layer in queue]
    if left:
        return replace(fit, agreeing=len(pairs), mismatch=f"the file has more layers, such as {left[0]}")
    return replace(fit, agreeing=len(pairs), pairs=tuple(pairs), by_names=by_names)


def _same_outputs(layer: _Layer, other: _Layer) -> bool:
    return layer.kind == other.kind and layer.shapes["weight"][0] == other.shapes["weight"][0]


def _plain(name: str) -> str:
    """conv_1, conv1 and Conv.1 are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return " ".join(f"{role} {'x'.join(map(str, shape))}" for role, shape in shapes.items())


def _filled(fit: _Fit) -> Match:
    """The network with the file's arrays in it."""
    state = {
        name: torch.zeros((), dtype=torch.int64)
        for name in fit.net.state_dict()
        if name.endswith("num_batches_tracked")
    }
    for ours, theirs in fit.pairs:
        for role, array in theirs.arrays.items():
            if role == "weight" and fit.layout == "keras" and ours.name in fit.net.flat_inputs:
                channels, height, width = fit.net.flat_inputs[ours.name]
                array = array.reshape(-1, height, width, channels).permute(0, 3, 1, 2).flatten(1)
            state[f"{ours.name}.{role}"] = array.contiguous()
    fit.net.load_state_dict(state, assign=True)
    how = "names" if fit.by_names else "the order of their shapes"
    side = f"{fit.input_shape[1]}x{fit.input_shape[2]}"
    notes = (
        f"architecture {fit.architecture} fits the arrays by {how}",
        f"images of {side}: the weights fit them",
    )
    return Match(fit.net, fit.architecture, fit.input_shape, fit.num_classes, notes)


def _message(path: Path, good: list[_Fit], all_fits: list[_Fit], arch: str | None) -> str:
    """Which architectures fit, or come near and where they first differ, and what to pass."""
    if good:
        listed = ", ".join(sorted({fit.architecture for fit in good}))
        return f"{path}: the weights fit several architectures: {listed}. Say which: arch=... (--arch)"
    near = sorted(all_fits, key=lambda fit: -fit.agreeing)[: 1 if arch else 3]
    lines = (
        "; ".join(f"{fit.architecture}: {fit.mismatch}" for fit in near) or "no convolution or no linear layer in it"
    )
    if arch:
        return f"{path}: the weights do not fit {arch}: {lines}"
    known = ", ".join(architectures.names())
    return f"{path}: the weights fit no known architecture. Nearest: {lines}. Pass arch=... (--arch), one of {known}"
