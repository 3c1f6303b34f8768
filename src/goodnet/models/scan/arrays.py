"""Files that hold arrays and nothing else: .npy (alone or inside .npz) and .safetensors."""

import math
import re
from typing import Any

from goodnet.models.scan.base import MIB, Broken, Finding, Window, parse_json
from goodnet.models.scan.pickles import PickleScan
from goodnet.models.scan.values import Vocabulary

NPY_MAGIC = b"\x93NUMPY"
NPY_LOOK = MIB
"""How much of an .npy file ``scan_npy`` is to be given: the header, and a pickle if it is one."""
_NPY_HEADER_LIMIT = 10_000
_DIMENSIONS = 32
_NPY_HEADER = re.compile(
    rb"\{'descr': '[<>|=]([a-zA-Z])(\d{0,4})', "
    rb"'fortran_order': (?:True|False), 'shape': \(([\d, L]{0,400})\),? {0,9}\}\s*"
)
_NPY_ITEMS = {b"b": 1, b"i": 1, b"u": 1, b"f": 1, b"c": 1, b"S": 1, b"U": 4}

_SAFETENSORS_HEADER_LIMIT = 100_000_000
_SAFETENSORS_TYPES = {1: "BOOL U8 I8 F8_E4M3 F8_E5M2", 2: "U16 I16 F16 BF16", 4: "U32 I32 F32", 8: "U64 I64 F64"}
_SAFETENSORS_BYTES = {name: size for size, names in _SAFETENSORS_TYPES.items() for name in names.split()}


def scan_npy(head: bytes, size: int) -> list[Finding]:
    """What is wrong with an .npy file of ``size`` bytes that starts with ``head`` (up to ``NPY_LOOK`` bytes).

    Raises:
        Broken: not a plain array of numbers or texts, or not all there.
    """
    width = {1: 2, 2: 4, 3: 4}.get(head[6] if len(head) > 6 else 0)
    if not head.startswith(NPY_MAGIC) or width is None:
        raise Broken("not an .npy file of a version that goodnet reads")
    start = 8 + width
    length = int.from_bytes(head[8:start], "little")
    if length > _NPY_HEADER_LIMIT or start + length > len(head):
        raise Broken(f"an .npy header that says it has {length:,} bytes")
    header = head[start : start + length]
    match = _NPY_HEADER.fullmatch(header)
    if match is None:
        raise Broken("an .npy header that numpy does not write for plain arrays")
    kind, item, shape = match.groups()
    if kind == b"O":
        message = "a numpy array of Python objects, which is a pickle: save plain arrays of numbers"
        scan = PickleScan(head, start + length, Vocabulary())
        inside = [finding for finding in scan.findings if finding.severity == "executes"]
        return [Finding("executes", "", "object array", message), *inside]
    if kind not in _NPY_ITEMS:
        raise Broken(f"a numpy array of kind {kind.decode()!r}; goodnet reads numbers and texts")
    lengths = [length.strip().removesuffix(b"L") for length in shape.split(b",") if length.strip()]
    if len(lengths) > _DIMENSIONS or not all(length.isdigit() and len(length) < 20 for length in lengths):
        raise Broken("an .npy header that numpy does not write for plain arrays")
    declared = math.prod(map(int, lengths)) * int(item or 0) * _NPY_ITEMS[kind]
    if declared != size - start - length:
        raise Broken(f"an array that declares {declared:,} bytes where there are {size - start - length:,}")
    return []


def is_safetensors(head: bytes) -> bool:
    """Whether a file that starts with these 9 bytes is to be read as safetensors: header length, then a brace."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER_LIMIT


def scan_safetensors(window: Window) -> list[Finding]:
    """Raise Broken unless the header is sound and its tensors fill the file without gap or overlap."""
    length = int.from_bytes(window.at(0, 8), "little")
    if 8 + length > window.size:
        raise Broken(f"truncated: the header says it has {length:,} bytes, the file has {window.size:,}")
    header = parse_json(window.at(8, length))
    if not isinstance(header, dict):
        raise Broken("the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise Broken("the metadata are not texts")
    ranges = sorted(_tensor_range(name, entry) for name, entry in header.items())
    end = 0
    for start, stop, name in ranges:
        if start != end:
            raise Broken(f"tensor {name!r:.80} overlaps another one, or leaves a gap before it")
        end = stop
    if 8 + length + end != window.size:
        raise Broken(f"the tensors end at byte {8 + length + end:,}, the file at byte {window.size:,}")
    return []


def _tensor_range(name: str, entry: Any) -> tuple[int, int, str]:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, stop], **rest} if not rest:
            numbers = [*shape, start, stop]
            sound = all(type(number) is int and 0 <= number < 2**63 for number in numbers) and len(shape) <= _DIMENSIONS
            if sound and dtype in _SAFETENSORS_BYTES and math.prod(shape) * _SAFETENSORS_BYTES[dtype] == stop - start:
                return start, stop, name
    raise Broken(f"tensor {name!r:.80}: type, shape and offsets do not fit")
