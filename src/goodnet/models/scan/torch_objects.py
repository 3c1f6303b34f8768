"""What a torch pickle may say: dense tensors in lists and dictionaries, checked against the bytes that are there.

The names are a subset of what ``torch.load(weights_only=True)`` admits; a tensor passes only if it lies inside its
storage and its storage is all there.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from goodnet.models.scan.base import MIB, Broken, is_bomb
from goodnet.models.scan.values import SCALARS, Global, Vocabulary

_FLOATING_STORAGES = {2: "Half BFloat16", 4: "Float", 8: "Double ComplexFloat", 16: "ComplexDouble"}
_INTEGER_STORAGES = {1: "Char Byte Bool", 2: "Short", 4: "Int", 8: "Long"}
_FLOATING_DTYPES = {
    1: "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz",
    2: "float16 bfloat16",
    4: "float32",
    8: "float64 complex64",
    16: "complex128",
}
_INTEGER_DTYPES = {1: "bool uint8 int8", 2: "uint16 int16", 4: "uint32 int32", 8: "uint64 int64"}


def _by_name(pattern: str, floating: Mapping[int, str], integer: Mapping[int, str]) -> dict[str, tuple[int, bool]]:
    """Full name → (bytes of an element, whether it can have a gradient)."""
    groups = [(names, size, True) for size, names in floating.items()]
    groups += [(names, size, False) for size, names in integer.items()]
    return {pattern.format(name): (size, can) for names, size, can in groups for name in names.split()}


_UNTYPED = "torch.storage.UntypedStorage"
_STORAGES = {
    _UNTYPED: (1, False),
    **_by_name("torch.{}Storage", _FLOATING_STORAGES, _INTEGER_STORAGES),
    **_by_name("torch.cuda.{}Storage", _FLOATING_STORAGES, _INTEGER_STORAGES),
}
_DTYPES = _by_name("torch.{}", _FLOATING_DTYPES, _INTEGER_DTYPES)
_UNREAD = frozenset(
    """
    builtins.bytearray builtins.complex torch.nn.parameter.Parameter torch.Tensor torch.serialization._get_layout
    torch.storage.TypedStorage torch._tensor._rebuild_from_type_v2 torch._utils._rebuild_tensor
    torch._utils._rebuild_device_tensor_from_cpu_tensor torch._utils._rebuild_device_tensor_from_numpy
    torch._utils._rebuild_meta_tensor_no_storage torch._utils._rebuild_nested_tensor torch._utils._rebuild_qtensor
    torch._utils._rebuild_parameter_with_state torch._utils._rebuild_sparse_tensor
    torch._utils._rebuild_wrapper_subclass torch.QInt8Storage torch.QUInt8Storage torch.QInt32Storage
    torch.QUInt4x2Storage torch.QUInt2x4Storage torch.qint8 torch.quint8 torch.qint32
    torch.per_tensor_affine torch.per_channel_affine torch.per_tensor_symmetric torch.per_channel_symmetric
    """.split()  # noqa: SIM905
)
_DEVICES = ("cpu", "cuda", "meta", "mps", "xpu")
_DIMENSIONS = 32
_LARGEST = 2**40
_ITEM_BYTES = 64
_COPY_LIMIT = 64 * MIB


@dataclass(frozen=True, eq=False)
class Storage:
    """Where the elements of tensors lie: ``count`` elements of ``element_bytes`` bytes under ``key``."""

    key: str
    kind: str
    element_bytes: int
    floating: bool
    count: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A dense tensor that lies inside its storage."""

    floating: bool


class TorchObjects:
    """The vocabulary of one torch pickle, and what it asks for.

    Attributes:
        storages: key → storage, in the order of first mention.
    """

    def __init__(self, sizes: Mapping[str, int] | None, present: int):
        """``sizes``: key → bytes there, or None if the storages follow the pickle; ``present``: bytes in the file."""
        self.storages: dict[str, Storage] = {}
        self._sizes = sizes
        self._present = present
        self._tensor_bytes = 0
        self._copied = 0

    def vocabulary(self) -> Vocabulary:
        calls = {
            "collections.OrderedDict": self._ordered_dict,
            "collections.Counter": self._counter,
            "builtins.set": self._set,
            "_codecs.encode": self._encode,
            "torch.Size": _size,
            "torch.device": _device,
            "torch._utils._rebuild_tensor_v2": self._tensor_v2,
            "torch._utils._rebuild_tensor_v3": self._tensor_v3,
            "torch._utils._rebuild_parameter": _parameter,
        }
        return Vocabulary(calls, {*_STORAGES, *_DTYPES}, _UNREAD, self.storage)

    def storage(self, identity: object) -> Storage:
        """The storage behind ("storage", type, key, location, count), or the same with None at the end."""
        match identity if type(identity) is tuple else None:
            case ("storage", Global(kind), str(key), str(), count) if self._sizes is not None:
                pass
            case ("storage", Global(kind), str(key), str(), count, None) if self._sizes is None and kind != _UNTYPED:
                pass
            case _:
                raise Broken("a persistent id that is not a storage as torch.save writes it")
        element_bytes, floating = _STORAGES.get(kind, (0, False))
        if not element_bytes or type(count) is not int or not 0 <= count <= _LARGEST:
            raise Broken(f"a storage of kind {kind} and absurd size")
        size = count * element_bytes
        there = self._present if self._sizes is None else self._sizes.get(key, -1)
        if size > there or (self._sizes is not None and size != there):
            raise Broken(f"storage {key[:40]!r} declares {size:,} bytes; the file holds {max(there, 0):,}")
        first = self.storages.setdefault(key, Storage(key, kind, element_bytes, floating, count))
        if (first.kind, first.count) != (kind, count):
            raise Broken(f"storage {key[:40]!r} is declared twice, and differently")
        return first

    def _tensor_v2(self, arguments: tuple[Any, ...]) -> Tensor:
        match arguments:
            case (Storage() as storage, offset, size, stride, grad, hooks, *rest) if storage.kind != _UNTYPED:
                _check_flags(grad, hooks, rest, storage.floating)
                self._check_extent(storage, storage.element_bytes, offset, size, stride)
                return Tensor(storage.floating)
        raise Broken("a tensor that is not as torch.save writes it")

    def _tensor_v3(self, arguments: tuple[Any, ...]) -> Tensor:
        match arguments:
            case (Storage() as storage, offset, size, stride, grad, hooks, Global(dtype), *rest) if dtype in _DTYPES:
                element_bytes, floating = _DTYPES[dtype]
                _check_flags(grad, hooks, rest, floating)
                self._check_extent(storage, element_bytes, offset, size, stride)
                return Tensor(floating)
        raise Broken("a tensor that is not as torch.save writes it")

    def _check_extent(self, storage: Storage, element_bytes: int, offset: Any, size: Any, stride: Any) -> None:
        if not _are_counts((offset,)) or not _are_counts(size) or not _are_counts(stride) or len(size) != len(stride):
            raise Broken("a tensor whose shape is not a tuple of numbers")
        if math.prod(max(length, 1) for length in size) > _LARGEST:
            raise Broken("a tensor of absurd shape")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        end = offset if 0 in size else last + 1
        if end * element_bytes > storage.count * storage.element_bytes:
            raise Broken(f"a tensor that reaches beyond the end of its storage {storage.key[:40]!r}")
        self._tensor_bytes += math.prod(size) * element_bytes
        if is_bomb(self._tensor_bytes, self._present):
            raise Broken(f"tensors that would take far more memory than the {self._present:,} bytes of the file")

    def _count_copy(self, size: int) -> None:
        """Whatever copies is counted: a pickle can name one large value a million times."""
        self._copied += size
        if self._copied > _COPY_LIMIT:
            raise Broken(f"more than {_COPY_LIMIT:,} bytes of sets, counters and texts")

    def _ordered_dict(self, arguments: tuple[Any, ...]) -> OrderedDict[Any, Any]:
        match arguments:
            case ():
                return OrderedDict()
            case (list(pairs),):
                self._count_copy(_ITEM_BYTES * len(pairs))
                sound = all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs)
                if sound and all(type(key) in SCALARS for key, _ in pairs):
                    return OrderedDict(pairs)
        raise Broken("an OrderedDict that is not as Python writes it")

    def _counter(self, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        match arguments:
            case ():
                return {}
            case (dict(counts),):
                self._count_copy(_ITEM_BYTES * len(counts))
                return dict(counts)
        raise Broken("a Counter that is not as Python writes it")

    def _set(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        match arguments:
            case (list(items),):
                self._count_copy(_ITEM_BYTES * len(items))
                if all(type(item) in SCALARS for item in items):
                    return tuple(items)
        raise Broken("a set that is not as Python writes it")

    def _encode(self, arguments: tuple[Any, ...]) -> bytes:
        match arguments:
            case (str(text), "latin1" | "latin-1"):
                self._count_copy(len(text))
                try:
                    return text.encode("latin-1")
                except UnicodeEncodeError:
                    pass
        raise Broken("bytes that are not as Python writes them")


def _check_flags(grad: object, hooks: object, metadata: list[Any], floating: bool) -> None:
    """``metadata`` marks conjugated or negated views; ordinary tensors have none."""
    plain = metadata in ([], [None], [{}]) and type(hooks) is OrderedDict and not hooks
    if not plain or type(grad) is not bool or (grad and not floating):
        raise Broken("a tensor with hooks or flags that ordinary tensors do not have")


def _are_counts(values: Any) -> bool:
    short = type(values) is tuple and len(values) <= _DIMENSIONS
    return short and all(type(value) is int and 0 <= value <= _LARGEST for value in values)


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    match arguments:
        case (Tensor() as tensor, grad, hooks):
            _check_flags(grad, hooks, [], tensor.floating)
            return tensor
    raise Broken("a parameter that is not as torch.save writes it")


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    match arguments:
        case (tuple(lengths),) if _are_counts(lengths):
            return lengths
    raise Broken("a torch.Size that is not a tuple of numbers")


def _device(arguments: tuple[Any, ...]) -> str:
    match arguments:
        case (str(kind), *index) if kind in _DEVICES and len(index) <= 1:
            if all(type(number) is int and 0 <= number < 128 for number in index):
                return kind
    raise Broken("a torch.device that does not exist")
