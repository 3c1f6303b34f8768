"""Random and damaged files: a report or a GoodnetError, quickly, and what passes also loads."""

import io
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from goodnet.errors import GoodnetError
from goodnet.models.file_safety import require_safe

KINDS = ("zip", "legacy", "safetensors", "npz")
OPERATIONS = (
    b"N \x88 K\x01 ) ] } ( . t \x85 \x86 R b a e s u Q 0 2 \x81 h\x00 h\x01 q\x05 X\x01\0\0\x000 U\x01a \x80\x02 "
    b"ccollections\nOrderedDict\n c__builtin__\nset\n ctorch\nFloatStorage\n ctorch._utils\n_rebuild_parameter\n"
).split(b" ")


@cache
def _sound(kind: str) -> bytes:
    tensors = {"weight": torch.arange(12.0).reshape(3, 4), "steps": torch.tensor(3)}
    buffer = io.BytesIO()
    if kind == "safetensors":
        return save_safetensors(tensors)
    if kind == "npz":
        np.savez_compressed(buffer, **{name: value.numpy() for name, value in tensors.items()})
    else:
        checkpoint = {"net": tensors, "epoch": 3, "names": ["a", ("b", None)]}
        torch.save(checkpoint, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def _load(kind: str, content: bytes) -> Any:
    if kind.startswith("torch"):
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return load_safetensors(content) if kind == "safetensors" else None


def _check(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    start = time.perf_counter()
    try:
        kind = require_safe(path).kind
    except GoodnetError:
        kind = ""
    # generous, for busy machines: what hangs or grows without bound takes minutes
    assert time.perf_counter() - start < 5
    _load(kind, content)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.bin"


@settings(max_examples=200, deadline=None)
@given(head=st.sampled_from([b"", b"PK\3\4", b"\x80\x02", b"\x93NUMPY\1\0", b"\2\0\0\0\0\0\0\0{"]), tail=st.binary())
def test_random_bytes_give_a_report_or_an_error(head: bytes, tail: bytes, path: Path) -> None:
    _check(head + tail, path)


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damaged_files_are_refused_or_load(kind: str, changes: Any, cut: float | None, path: Path) -> None:
    content = bytearray(_sound(kind))
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    _check(bytes(content[: None if cut is None else int(cut * len(content))]), path)


@settings(max_examples=200, deadline=None)
@given(operations=st.lists(st.sampled_from(OPERATIONS), max_size=12), place=st.floats(0, 1))
def test_pickles_with_operations_put_in_are_refused_or_load(operations: list[bytes], place: float, path: Path) -> None:
    content = _sound("legacy")
    position = int(place * len(content))
    _check(content[:position] + b"".join(operations) + content[position:], path)
