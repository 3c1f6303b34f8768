"""Whatever the bytes: a reader gives arrays or raises GoodnetError, and takes little memory."""

import contextlib
import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from goodnet.errors import GoodnetError, UnknownArchitecture
from goodnet.models import formats, keras_graph, match

ARRAYS = {"conv.weight": torch.ones(4, 3, 3, 3), "conv.bias": torch.ones(4), "fc.weight": torch.ones(3, 16)}
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _torch(zip_file: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": ARRAYS, "epoch": 3}, buffer, _use_new_zipfile_serialization=zip_file)
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value.numpy() for name, value in ARRAYS.items()})
    return buffer.getvalue()


GRAPH: dict[str, Any] = {
    "class_name": "Functional",
    "config": {
        "name": "net",
        "layers": [
            {"class_name": "InputLayer", "name": "i", "config": {"batch_shape": [None, 6, 6, 3]}, "inbound_nodes": []},
            {
                "class_name": "Conv2D",
                "name": "conv",
                "config": {"filters": 4, "kernel_size": [3, 3], "strides": 2, "padding": "same", "activation": "relu"},
                "inbound_nodes": [[["i", 0, 0, {}]]],
            },
            {"class_name": "MaxPooling2D", "name": "p", "config": {}, "inbound_nodes": [[["conv", 0, 0, {}]]]},
            {"class_name": "Flatten", "name": "f", "config": {}, "inbound_nodes": [[["p", 0, 0, {}]]]},
            {
                "class_name": "Dense",
                "name": "fc",
                "config": {"units": 3, "use_bias": False, "activation": "softmax"},
                "inbound_nodes": [
                    {"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": ["f", 0, 0]}}]}
                ],
            },
        ],
        "input_layers": [["i", 0, 0]],
        "output_layers": ["fc", 0, 0],
    },
}
GOOD = {
    "torch zip": _torch(True),
    "torch legacy pickle": _torch(False),
    "safetensors": save(ARRAYS),
    "npz": _npz(),
}
edits = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["flip", "drop", "add", "end"]), st.binary(max_size=8)), max_size=6
)


def edited(content: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    """``content`` with bytes replaced, dropped, added or cut off at relative places."""
    for place, how, new in changes:
        at = int(place * len(content))
        match how:
            case "flip":
                content = content[:at] + new + content[at + len(new) :]
            case "drop":
                content = content[:at] + content[at + len(new) :]
            case "add":
                content = content[:at] + new + content[at:]
            case "end":
                content = content[:at]
    return content


def assert_read_or_refused(path: Path, kind: str) -> None:
    try:
        file = formats.read(path, kind)
    except GoodnetError:
        return
    assert sum(array.numel() for array in file.arrays.values()) < 1_000_000


@pytest.mark.parametrize("kind", GOOD)
@MANY
@given(changes=edits)
def test_damaged_files_are_read_or_refused(kind: str, changes: list[tuple[float, str, bytes]], tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(edited(GOOD[kind], changes))
    assert_read_or_refused(tmp_path / "a.bin", kind)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02", bytes(8) + b"{", b""])
@MANY
@given(rest=st.binary(max_size=400), kind=st.sampled_from(list(GOOD)))
def test_random_bytes_after_a_known_beginning_are_refused(start: bytes, rest: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(start + rest)
    assert_read_or_refused(tmp_path / "a.bin", kind)


plain_names = st.sampled_from(
    ["conv", "fc", "conv/kernel:0", "kernel", "a/b", "/", "..", "vars", "0", "layers", "", "é"]
)
attributes = st.one_of(
    st.lists(plain_names.map(str.encode), max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
    st.binary(min_size=1, max_size=9).map(np.void),
    st.text("{}[]ab", max_size=4),
    st.floats(),
)
values = st.builds(
    np.zeros,
    st.lists(st.integers(0, 4), max_size=4),
    st.sampled_from(["f4", "f2", ">f8", "i1", "u8", "?", "c8", "S3", [("a", "f4")]]),
)


# the bytes of HDF5 files are not damaged here: its C library can take all memory, so file_safety looks at them first
@MANY
@given(
    tree=st.dictionaries(plain_names, st.one_of(values, st.dictionaries(plain_names, values, max_size=3)), max_size=3),
    marks=st.dictionaries(st.sampled_from(["layer_names", "layer_names0", "model_config"]), attributes, max_size=2),
    inner_marks=st.dictionaries(st.sampled_from(["weight_names", "weight_names0", "name"]), attributes, max_size=2),
)
def test_hdf5_of_any_content_is_read_or_refused(
    tree: dict[str, Any], marks: dict[str, Any], inner_marks: dict[str, Any], tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update(marks)
        for name, value in tree.items():
            with contextlib.suppress(ValueError, RuntimeError, OSError, TypeError):  # of h5py, what it does not write
                if isinstance(value, dict):
                    group = file.require_group(name)
                    group.attrs.update(inner_marks)
                    for inner, array in value.items():
                        group.require_group("vars")[inner] = array
                        group[inner] = array
                else:
                    file[name] = value
    assert_read_or_refused(tmp_path / "a.h5", "hdf5")


def replaced(value: Any, place: int, new: Any) -> tuple[Any, int]:
    """JSON ``value`` with the part that is the ``place``-th one replaced, and what is left of ``place``."""
    if place == 0:
        return new, -1
    place -= 1
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        made = []
        for key, part in items:
            part, place = replaced(part, place, new) if place >= 0 else (part, place)
            made.append((key, part))
        return (dict(made) if isinstance(value, dict) else [part for _, part in made]), place
    return value, place


odd_json = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["Conv2D", "Dense", "Sequential", "same", "channels_first", "softmax", "i", "conv", "f", "fc"]),
    st.lists(st.integers(-3, 9), max_size=4),
    st.dictionaries(st.sampled_from(["class_name", "config", "name"]), st.integers(0, 3), max_size=2),
)


@settings(max_examples=600, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 110), odd_json), min_size=1, max_size=3))
def test_damaged_graphs_are_refused_by_name(changes: list[tuple[int, Any]]) -> None:
    graph: Any = GRAPH
    for place, new in changes:
        graph, _ = replaced(graph, place, new)
    with pytest.raises(GoodnetError, match=r"model\.h5"):  # at the latest because there are no arrays
        keras_graph.fill(Path("model.h5"), keras_graph.build(Path("model.h5"), graph, None)[0], {})


shapes = st.lists(st.sampled_from([1, 2, 3, 4, 10, 16, 32, 64, 160, 5000]), max_size=5)
names = st.sampled_from(["conv1", "conv1.0", "conv_1", "conv_2", "fc1.0", "fc", "linear", "output", "features.0", "x"])
roles = st.sampled_from(
    ["weight", "bias", "running_mean", "running_var", "num_batches_tracked", "0", "1", "kernel", "z"]
)


@settings(max_examples=100, deadline=None)
@given(
    arrays=st.dictionaries(st.builds("{}.{}".format, names, roles), shapes, max_size=8),
    layout=st.sampled_from(["torch", "keras", ""]),
)
def test_arrays_of_any_names_and_shapes_that_fit_nothing_are_refused(arrays: dict[str, list[int]], layout: str) -> None:
    tensors = {name: torch.zeros(()).expand(shape) for name, shape in arrays.items()}
    file = formats.ModelFile("test", tensors, layout)
    with pytest.raises(UnknownArchitecture, match=r"model\.bin"):
        match.find(Path("model.bin"), file)
