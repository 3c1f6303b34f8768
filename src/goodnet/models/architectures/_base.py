"""The architecture contract, and the names: importing the modules of this package fills the table."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from torch import nn

from goodnet.core.registry import unknown_name
from goodnet.errors import ParameterError, UnknownName

Shape = tuple[int, ...]
ImageShape = tuple[int, int, int]


class Architecture(nn.Module):
    """A network that can be built by name.

    A subclass takes ``num_classes`` and ``input_shape`` (C, H, W), and optionally ``width`` and ``depth``, all
    keyword-only, with defaults for the last two. Its ``forward`` gives logits, no softmax.

    Attributes:
        name: the registered name.
        default_input_shape: (C, H, W) where none is asked for.
        flat_inputs: linear layer -> (C, H, W) of the maps that it takes flattened; Keras flattens them as (H, W, C).
    """

    name: ClassVar[str]
    default_input_shape: ClassVar[ImageShape]
    flat_inputs: Mapping[str, ImageShape] = {}

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Which of ``width`` and ``depth`` this architecture takes."""
        accepted = inspect.signature(cls).parameters
        return tuple(option for option in ("width", "depth") if option in accepted)

    @classmethod
    def infer_options(cls, kernels: Sequence[Shape]) -> dict[str, int]:
        """The options of a network with convolution kernels of these shapes (out, in, h, w), given in any order.

        Here: the width is the number of filters of the first convolution, the one that takes the fewest channels.
        """
        first = min(kernels, key=lambda kernel: kernel[1])
        return {"width": first[0]} if "width" in cls.options() else {}


_known: dict[str, type[Architecture]] = {}


def register(name: str, *, input_shape: ImageShape) -> Callable[[type[Architecture]], type[Architecture]]:
    """Class decorator: list the class under ``name``, with (C, H, W) where the caller asks for none."""

    def decorate(cls: type[Architecture]) -> type[Architecture]:
        if name in _known:
            raise ValueError(f"architecture {name!r} is already {_known[name].__qualname__}")
        cls.name = name
        cls.default_input_shape = input_shape
        _known[name] = cls
        return cls

    return decorate


def all_architectures() -> tuple[type[Architecture], ...]:
    """Every architecture, by name."""
    package = importlib.import_module("goodnet.models.architectures")
    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{info.name}")
    return tuple(_known[name] for name in sorted(_known))


def names() -> tuple[str, ...]:
    """The names that ``build`` knows, sorted."""
    return tuple(architecture.name for architecture in all_architectures())


def get(name: str) -> type[Architecture]:
    """The architecture named ``name``.

    Raises:
        UnknownName: there is none; the message has the nearest name and all of them.
    """
    if name not in names():
        raise UnknownName(unknown_name("architecture", name, names()))
    return _known[name]


def parse(written: str) -> tuple[str, dict[str, int]]:
    """``"wide_resnet:depth=16,width=2"`` → ``("wide_resnet", {"depth": 16, "width": 2})``.

    Raises:
        ParameterError: what follows the colon is not a list of option=integer.
    """
    name, _, rest = written.partition(":")
    chosen: dict[str, int] = {}
    for part in filter(None, rest.split(",")):
        option, _, value = part.partition("=")
        if option not in ("width", "depth") or not value.isdecimal() or not value.isascii():
            raise ParameterError(f"{written!r}: after the colon write width=N or depth=N, not {part!r}")
        chosen[option] = int(value)
    return name, chosen


def text(name: str, options: Mapping[str, int]) -> str:
    """The inverse of ``parse``: name and options as one word."""
    listed = ",".join(f"{option}={value}" for option, value in sorted(options.items()))
    return f"{name}:{listed}" if listed else name


def build(
    name: str,
    *,
    num_classes: int,
    input_shape: ImageShape | None = None,
    width: int | None = None,
    depth: int | None = None,
) -> Architecture:
    """A freshly initialised network; preprocessed images (N, C, H, W) → logits (N, num_classes).

    Args:
        name: one of ``names()``; options may follow it, as in ``"wide_resnet:depth=16,width=2"``.
        num_classes: at least 1.
        input_shape: (C, H, W); by default the architecture's own.
        width: filters of the first convolution, or the widening factor of ``wide_resnet``; by default as published.
        depth: layers, where the architecture has a choice.

    Raises:
        UnknownName: no such architecture.
        ParameterError: an option that this architecture does not have, or images too small for it.
    """
    name, chosen = parse(name)
    architecture = get(name)
    chosen |= {option: value for option, value in (("width", width), ("depth", depth)) if value is not None}
    for option in chosen:
        if option not in architecture.options():
            has = " and ".join(architecture.options()) or "no options"
            raise ParameterError(f"architecture {name} does not take {option}; it has {has}")
    shape = input_shape or architecture.default_input_shape
    if num_classes < 1 or min(chosen.values(), default=1) < 1 or len(shape) != 3 or min(shape) < 1:
        raise ParameterError(
            f"{name}: num_classes, width, depth and (C, H, W) must be at least 1, got {num_classes}, {chosen}, {shape}"
        )
    return architecture(num_classes=num_classes, input_shape=shape, **chosen)


def map_size(shrink: Callable[[int], int], input_shape: ImageShape) -> tuple[int, int]:
    """Height and width of the maps that ``shrink``, given one side of the image, leaves of (C, H, W).

    Raises:
        ParameterError: nothing would be left.
    """
    height, width = shrink(input_shape[1]), shrink(input_shape[2])
    if height < 1 or width < 1:
        raise ParameterError(f"images of {input_shape[1]}x{input_shape[2]} are too small for this architecture")
    return height, width
