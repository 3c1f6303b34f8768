"""Model files that are damaged, absurd or of another kind are refused in words, without taking memory."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from goodnet import load_model
from goodnet.errors import GoodnetError, UnreadableModel, UnsafeFile
from goodnet.models import architectures, formats, keras_graph
from goodnet.models.file_safety import require_safe

Writer = Callable[[Path], object]
KINDS = {".pth": "torch zip", ".pt": "torch zip", ".safetensors": "safetensors", ".npz": "npz", ".h5": "hdf5"}


def read(path: Path) -> formats.ModelFile:
    """By the reader that the name stands for, whatever the scan says."""
    return formats.read(path, KINDS[path.suffix])


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return architectures.build("small_cnn", num_classes=4).state_dict()


def npz_with(header: bytes, body: bytes) -> Writer:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("conv.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body)

    return write


def npy_header(shape: str, dtype: str = "<f4") -> bytes:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()


def h5_with(fill: Callable[[h5py.File], object]) -> Writer:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"conv"]
            group = file.create_group("conv")
            group.attrs["weight_names"] = [b"conv/kernel:0"]
            fill(group)

    return write


def keras_file(config: Any) -> Writer:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
            file.create_group("model_weights").attrs["layer_names"] = np.zeros(0, "S1")

    return write


def sequential(*layers: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    entries = [{"class_name": "InputLayer", "config": {"name": "in", "batch_input_shape": [None, 8, 8, 3]}}]
    entries += [{"class_name": kind, "config": {"name": f"l{i}", **config}} for i, (kind, config) in enumerate(layers)]
    return {"class_name": "Sequential", "config": {"name": "net", "layers": entries}}


def pickled_module(path: Path) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), path)


def torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl", "version"):
            archive.writestr(f"a/{name}", b"\x80\x02}.")


def inflated_torch(path: Path) -> None:
    """A pickle that claims a storage of 4 GiB beside a record of a few bytes."""
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.zeros(10, 1)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("data.pkl"):
                content = content.replace(b"K\nt", b"J\x00\x00\x00\x40t").replace(
                    b"K\nK\x01\x86", b"J\x00\x00\x00\x40K\x01\x86"
                )
            new.writestr(member.filename, content)


def expanded_torch(path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1).expand(10**6, 10**6)}, path)


def compressed_torch(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def bomb_npz(path: Path) -> None:
    np.savez_compressed(path, a=np.zeros(10**8, np.uint8))


def external_h5(path: Path) -> None:
    (path.parent / "secret").write_bytes(bytes(4 * 36))
    h5_with(
        lambda group: group.create_dataset(
            "conv/kernel:0", (3, 3, 1, 4), "f4", external=[(str(path.parent / "secret"), 0, 144)]
        )
    )(path)


def virtual_h5(path: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "data", (4,))
    h5_with(lambda group: group.create_virtual_dataset("conv/kernel:0", layout))(path)


def cyclic_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = file["b"] = file["/"]


REFUSED: dict[str, tuple[str, Writer, str]] = {
    "nothing": ("a.pth", lambda path: path.write_bytes(b""), "cannot be read as a torch zip file"),
    "a text": ("a.pth", lambda path: path.write_text("hello, this is no model"), "cannot be read as a torch zip file"),
    "a whole module": ("a.pth", pickled_module, "holds a pickled torch.nn"),
    "TorchScript": ("a.pt", lambda path: torchscript(path), "is TorchScript, which is code"),
    "a storage larger than its record": ("a.pth", inflated_torch, "cannot be read as a torch checkpoint"),
    "a tensor larger than its storage": ("a.pth", expanded_torch, "more numbers than the file holds"),
    "compressed records": ("a.pth", compressed_torch, "has compressed records"),
    "no weights": ("a.pth", lambda path: torch.save({"epoch": 3, "best": {"a": 1.0}}, path), "no state dict"),
    "complex weights": (
        "a.pth",
        lambda path: torch.save({"a.weight": torch.zeros(2, 2, dtype=torch.complex64)}, path),
        "real",
    ),
    "sparse weights": (
        "a.pth",
        lambda path: torch.save({"a.weight": torch.eye(3).to_sparse()}, path),
        "not a dense array",
    ),
    "pickled arrays": ("a.npz", lambda path: np.savez(path, a=np.array([{}], dtype=object)), "holds pickled objects"),
    "texts as arrays": ("a.npz", lambda path: np.savez(path, a=np.array(["x"])), "holds <U1, not numbers"),
    "a shape without bytes": (
        "a.npz",
        npz_with(npy_header("(1000000, 1000000)"), bytes(64)),
        "not what the file holds",
    ),
    "a negative shape": ("a.npz", npz_with(npy_header("(-1, 16)"), bytes(64)), "not what the file holds"),
    "a header that is no header": (
        "a.npz",
        npz_with(b"__import__('os')\n", bytes(64)),
        "cannot be read as an npz file",
    ),
    "a decompression bomb": ("a.npz", bomb_npz, "declares 100,000,128 bytes"),
    "safetensors without its arrays": (
        "a.safetensors",
        lambda path: path.write_bytes(
            struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(64)
        ),
        "cannot be read as a safetensors file",
    ),
    "HDF5 of something else": ("a.h5", lambda path: h5py.File(path, "w").close(), "not of Keras"),
    "a link to another file": (
        "a.h5",
        h5_with(lambda g: g.__setitem__("x", h5py.ExternalLink("other.h5", "/"))),
        "link out of its place",
    ),
    "a symbolic link": ("a.h5", h5_with(lambda g: g.__setitem__("x", h5py.SoftLink("/"))), "link out of its place"),
    "numbers in another file": ("a.h5", external_h5, "in another file; it is refused"),
    "a virtual array": ("a.h5", virtual_h5, "in another file; it is refused"),
    "groups in a circle": ("a.h5", cyclic_h5, "more than 32 deep"),
    "an array that was never written": (
        "a.h5",
        h5_with(lambda g: g.create_dataset("conv/kernel:0", (10**6, 10**6), "f4", chunks=(9, 9))),
        "declares 4,000,000,000,000 bytes",
    ),
    "a graph that is no JSON": ("a.h5", keras_file("{"), "cannot be read as a Keras HDF5 file"),
    "a graph that is a list": ("a.h5", keras_file([1]), "model_config is not a model"),
    "a model without weights": ("a.h5", keras_file(sequential(("Flatten", {}))), "no layer of the network has weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_usable_model_file_is_refused(name: str, tmp_path: Path) -> None:
    file, write, _ = REFUSED[name]
    write(tmp_path / file)
    with pytest.raises((UnreadableModel, UnsafeFile), match=file.replace(".", r"\.")):
        load_model(tmp_path / file)


# the arrays of the last one are fine; its graph is not
@pytest.mark.parametrize("name", [name for name in REFUSED if name != "a model without weights"])
def test_the_readers_refuse_it_also_without_the_scan_before_them(name: str, tmp_path: Path) -> None:
    file, write, message = REFUSED[name]
    write(tmp_path / file)
    with pytest.raises((UnreadableModel, UnsafeFile), match=message):
        read(tmp_path / file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel, match="gone.h5"):
        load_model(tmp_path / "gone.h5")


def test_a_pickled_module_is_told_to_save_a_state_dict(tmp_path: Path) -> None:
    pickled_module(tmp_path / "a.pth")
    with pytest.raises(UnsafeFile, match=r"torch.nn.modules.container.Sequential.*torch.save\(model.state_dict\(\)"):
        read(tmp_path / "a.pth")


def test_what_is_safe_and_no_model_is_refused_by_its_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 3)))
    with pytest.raises(UnreadableModel, match=r"a.npy is of kind 'npy'; goodnet reads .*npz"):
        load_model(tmp_path / "a.npy")


def test_the_content_and_not_the_name_tells_the_format(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "zip.h5")
    torch.save(state(), tmp_path / "legacy.npz", _use_new_zipfile_serialization=False)
    save_file(state(), tmp_path / "a.pth")
    found = {path.name: load_model(path).origin.format for path in tmp_path.iterdir()}
    assert found == {"zip.h5": "torch zip", "legacy.npz": "torch legacy", "a.pth": "safetensors"}


def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "zip.pth")
    torch.save(state(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state(), tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", **{name: value.numpy() for name, value in state().items()})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = [b"c"]
        file.create_group("c").attrs["weight_names"] = [b"c/kernel"]
        file["c/c/kernel"] = np.ones((5, 5, 1, 16), "f4")
    for path in list(tmp_path.iterdir()):
        whole = path.read_bytes()
        formats.read(path, require_safe(path).kind)
        for share in (0.01, 0.3, 0.6, 0.9, 0.999):
            path.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(GoodnetError, match=path.name):
                load_model(path)


def test_half_precision_and_double_become_single(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", h=np.ones(3, "f2"), d=np.ones(3), i=np.ones(3, "i2"), big=np.ones(3, ">f4"))
    dtypes = {name: value.dtype for name, value in read(tmp_path / "a.npz").arrays.items()}
    assert dtypes == {"h": torch.float32, "d": torch.float32, "i": torch.int64, "big": torch.float32}
    save_file({"b": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert read(tmp_path / "a.safetensors").arrays["b"].dtype == torch.float32


def test_arrays_are_copies_that_outlive_the_file(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(64, 64)}, tmp_path / "a.pth")
    array = read(tmp_path / "a.pth").arrays["a.weight"]
    (tmp_path / "a.pth").write_bytes(bytes((tmp_path / "a.pth").stat().st_size))
    assert array.sum() == 64 * 64


def test_names_of_many_layers_spread_over_attributes_are_joined(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(3):
            file.attrs[f"layer_names{number}"] = [f"l{number}".encode()]
            group = file.create_group(f"l{number}")
            group.attrs["weight_names"] = [b"x/kernel:0"]
            group["x/kernel:0"] = np.ones((2, 2), "f4")
    assert list(read(tmp_path / "a.h5").arrays) == ["l0/x/kernel", "l1/x/kernel", "l2/x/kernel"]


GRAPHS: dict[str, tuple[Any, str]] = {
    "an unknown layer": (sequential(("Quantum", {})), r"'l0' \(Quantum\): this kind of layer is not supported"),
    "a subclassed model": ({"class_name": "MyNet", "config": {}}, "class 'MyNet' is not supported"),
    "an unknown activation": (sequential(("Activation", {"activation": "wobble"})), "activation 'wobble'"),
    "an unknown layer as activation": (
        sequential(("Activation", {"activation": {"class_name": "Wobble"}})),
        "activation Wobble is not supported",
    ),
    "an unknown padding": (
        sequential(("Conv2D", {"filters": 2, "kernel_size": 3, "padding": "reflect"})),
        "padding='reflect'",
    ),
    "absurd filters": (sequential(("Conv2D", {"filters": 10**12, "kernel_size": 3})), "filters must be a whole number"),
    "negative strides": (sequential(("Conv2D", {"filters": 2, "kernel_size": 3, "strides": -1})), "strides must be"),
    "filters in words": (sequential(("Conv2D", {"filters": "two", "kernel_size": 3})), "filters must be"),
    "a huge answer": (sequential(("UpSampling2D", {"size": 100_000})), "numbers for one image; it is refused"),
    "a kernel larger than the image": (sequential(("Conv2D", {"filters": 2, "kernel_size": 30})), "cannot be read"),
    "a number that is none": (sequential(("LeakyReLU", {"alpha": "steep"})), "alpha must be"),
    "maps as answer": (sequential(("ReLU", {})), "a classifier gives 2 or more"),
    "one number as answer": (sequential(("Flatten", {}), ("Dense", {"units": 1})), "a classifier gives 2 or more"),
    "no input shape": ({"class_name": "Sequential", "config": {"layers": []}}, "input is None"),
    "layers of one name": (
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "ReLU", "config": {"name": "a"}}] * 2}},
        "same name",
    ),
    "missing arrays": (sequential(("Flatten", {}), ("Dense", {"units": 3})), "has 0 arrays, 2 wanted"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_that_are_absurd_or_unknown_are_refused_by_name(name: str, tmp_path: Path) -> None:
    graph, message = GRAPHS[name]
    keras_file(graph)(tmp_path / "a.h5")
    with pytest.raises(UnreadableModel, match=message):
        load_model(tmp_path / "a.h5")


def test_lambda_layers_are_unsafe(tmp_path: Path) -> None:
    keras_file(sequential(("Lambda", {"function": ["4wEAAAA", None, None]})))(tmp_path / "a.h5")
    with pytest.raises(UnsafeFile, match="Lambda"):
        load_model(tmp_path / "a.h5")


def functional(links: dict[str, list[str]], output: str = "d") -> dict[str, Any]:
    """Layers named by kind letter: i input, f flatten, d dense, a add; ``links`` are their inputs."""
    kinds = {"i": "InputLayer", "f": "Flatten", "d": "Dense", "a": "Add"}
    layers = [
        {
            "class_name": kinds[name[0]],
            "name": name,
            "config": {"name": name, "units": 3, "batch_input_shape": [None, 8, 8, 3]},
            "inbound_nodes": [[[source, 0, 0, {}] for source in sources]] if sources else [],
        }
        for name, sources in links.items()
    ]
    config = {"name": "net", "layers": layers, "input_layers": [["i", 0, 0]], "output_layers": [[output, 0, 0]]}
    return {"class_name": "Functional", "config": config}


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ({"i": [], "f": ["i"], "a": ["f", "a2"], "a2": ["a"], "d": ["a"]}, "in a circle"),
        ({"i": [], "f": ["i"], "d": ["gone"]}, "needs the result of 'gone'"),
        ({"i": [], "i2": [], "f": ["i"], "d": ["i2"]}, "needs the result of 'i2'"),
        ({"i": [], "d": ["d"]}, "in a circle"),
    ],
)
def test_wiring_that_cannot_run_is_refused(links: dict[str, list[str]], message: str, tmp_path: Path) -> None:
    keras_file(functional(links))(tmp_path / "a.h5")
    with pytest.raises(UnreadableModel, match=message):
        load_model(tmp_path / "a.h5")


def test_nested_models_of_keras_2_count_their_own_making_as_a_call() -> None:
    inner = functional({"i": [], "f": ["i"], "d": ["f"]})
    outer = {
        "class_name": "Functional",
        "config": {
            "name": "outer",
            "layers": [
                {
                    "class_name": "InputLayer",
                    "name": "i",
                    "config": {"name": "i", "batch_input_shape": [None, 8, 8, 3]},
                    "inbound_nodes": [],
                },
                {**inner, "name": "net", "inbound_nodes": [[["i", 0, 0, {}]]]},
                {
                    "class_name": "Dense",
                    "name": "d",
                    "config": {"name": "d", "units": 2},
                    "inbound_nodes": [[["net", 1, 0, {}]]],
                },
            ],
            "input_layers": [["i", 0, 0]],
            "output_layers": [["d", 0, 0]],
        },
    }
    path = Path("model.h5")
    network, shape, _ = keras_graph.build(path, outer, None)
    keras_graph.fill(
        path,
        network,
        {
            "net/d/kernel": torch.ones(192, 3),
            "net/d/bias": torch.tensor([0.0, 1, 2]),
            "d/kernel": torch.ones(3, 2),
            "d/bias": torch.tensor([0.0, 1]),
        },
    )
    assert shape == (3, 8, 8)
    assert network(torch.ones(1, 3, 8, 8)).tolist() == [[579.0, 580.0]]


def test_layers_that_are_called_in_a_special_way_are_refused(tmp_path: Path) -> None:
    graph = functional({"i": [], "f": ["i"], "d": ["f"]})
    graph["config"]["layers"][1]["inbound_nodes"][0][0][3] = {"training": True}
    keras_file(graph)(tmp_path / "a.h5")
    with pytest.raises(UnreadableModel, match="called with training=True"):
        load_model(tmp_path / "a.h5")


def test_a_graph_nested_without_end_is_refused(tmp_path: Path) -> None:
    graph = sequential(("Flatten", {}), ("Dense", {"units": 3}))
    for number in range(40):
        graph = {"class_name": "Sequential", "config": {"name": f"m{number}", "layers": [graph]}}
    keras_file(graph)(tmp_path / "a.h5")
    with pytest.raises(UnreadableModel):
        load_model(tmp_path / "a.h5")


def test_a_pickle_that_calls_something_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    for protocol in (2, 4):
        (tmp_path / "a.pth").write_bytes(pickle.dumps({"a": Evil()}, protocol))
        for load in (load_model, lambda path: formats.read(path, "torch legacy pickle")):
            with pytest.raises((UnsafeFile, UnreadableModel)):
                load(tmp_path / "a.pth")
    assert not (tmp_path / "run").exists()
