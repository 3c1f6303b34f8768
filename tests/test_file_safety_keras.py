"""Hostile Keras and HDF5 files: layers that are code, and files that reach beyond themselves."""

import base64
import json
import marshal
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_file_safety_helpers import EXECUTES, UNREADABLE, Hostile, check, zipped

from goodnet.models.file_safety import scan_file


def _bytecode(marker: Path) -> str:
    """What Keras 2 runs for a Lambda layer: a marshaled code object that would create ``marker``."""
    code = compile(f"lambda x: open({str(marker)!r}, 'w')", "layer", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def _lambda(marker: Path) -> dict[str, Any]:
    function = {"name": "crop", "function": [_bytecode(marker), None, None], "function_type": "lambda"}
    return {"class_name": "Lambda", "config": function}


def _model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "net", "layers": list(layers)}}


def _hdf5(fill: Callable[[h5py.File, Path], None]) -> Callable[[Path, Path], Path]:
    def make(folder: Path, marker: Path) -> Path:
        with h5py.File(folder / "model.h5", "w") as file:
            fill(file, marker)
        return folder / "model.h5"

    return make


def _configured(config: Callable[[Path], Any]) -> Callable[[Path, Path], Path]:
    """An HDF5 file with this model_config, as an object or as text."""

    def fill(file: h5py.File, marker: Path) -> None:
        value = config(marker)
        file.attrs["model_config"] = value if isinstance(value, str) else json.dumps(value)

    return _hdf5(fill)


def _archive(config: Callable[[Path], Any]) -> Callable[[Path, Path], Path]:
    """A .keras archive with this config.json."""

    def make(folder: Path, marker: Path) -> Path:
        with h5py.File(folder / "weights.h5", "w") as file:
            file["layers/dense/vars/0"] = np.ones(3, "f4")
        weights = (folder / "weights.h5").read_bytes()
        content = {"config.json": json.dumps(config(marker)).encode(), "metadata.json": b"{}"}
        (folder / "model.keras").write_bytes(zipped({**content, "model.weights.h5": weights}))
        return folder / "model.keras"

    return make


def _keras_3(module: str, name: str, config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def _external_storage(file: h5py.File, _: Path) -> None:
    file.create_dataset("kernel", (8,), "u1", external=[("/etc/passwd", 0, 8)])


def _virtual(file: h5py.File, _: Path) -> None:
    layout = h5py.VirtualLayout((8,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (8,))
    file.create_virtual_dataset("kernel", layout)


def _links(target: Any) -> Callable[[Path, Path], Path]:
    return _hdf5(lambda file, _: file.__setitem__("kernel", target))


def _cycle(file: h5py.File, _: Path) -> None:
    group = file.create_group("layers")
    group["again"] = group


def _truncated(folder: Path, marker: Path) -> Path:
    path = _hdf5(lambda file, _: file.__setitem__("kernel", np.ones(1000)))(folder, marker)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _many_names(folder: Path, _: Path) -> Path:
    with h5py.File(folder / "model.h5", "w", libver="latest") as file:
        file.attrs["layer_names"] = np.full(200_000, b"x")
    return folder / "model.h5"


def _shared_texts(folder: Path, count: int, size: int, length: int) -> Path:
    """Layer names that are all one text of ``size`` bytes, kept once in the file and said to have ``length`` bytes."""
    path = folder / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [""] * (count - 1) + ["x" * size]
    content = bytearray(path.read_bytes())
    last = max(content.find(struct.pack("<IQ", size, heap.start())) for heap in re.finditer(b"GCOL", content))
    name = struct.pack("<I", length) + content[last + 4 : last + 16]  # length, and where the text is kept
    content[last + 16 - 16 * count : last + 16] = name * count
    path.write_bytes(content)
    return path


CASES = {
    "lambda-layer": Hostile(
        "a Lambda layer in `.h5`",
        _configured(lambda marker: _model(_lambda(marker))),
        "attribute 'model_config', layer 'crop': a Lambda layer, which holds Python bytecode",
        EXECUTES,
    ),
    "lambda-nested": Hostile(
        "a Lambda layer inside a layer inside a model inside a model",
        _configured(
            lambda marker: _model(
                _model({"class_name": "TimeDistributed", "config": {"name": "wrap", "layer": _lambda(marker)}})
            )
        ),
        "layer 'crop': a Lambda layer",
        EXECUTES,
    ),
    "lambda-by-another-name": Hostile(
        "a function in the configuration of a layer that is not called Lambda",
        _configured(lambda marker: _model({"class_name": "Crop", "config": _lambda(marker)["config"]})),
        "'function' in a layer's configuration",
        EXECUTES,
    ),
    "lambda-keras-3": Hostile(
        "a Lambda layer in `.keras`",
        _archive(lambda marker: _model({"class_name": "__lambda__", "config": {"code": _bytecode(marker)}})),
        "config.json, layer 'net': a pickled lambda",
        EXECUTES,
    ),
    "tensorflow-operation": Hostile(
        "a layer that calls a TensorFlow function by name",
        _configured(lambda _: _model({"class_name": "TFOpLambda", "config": {"function": "io.write_file"}})),
        "a layer that calls a TensorFlow function by name",
        EXECUTES,
    ),
    "custom-module": Hostile(
        "an object for which Keras 3 imports a module (CVE-2025-1550)",
        _archive(lambda _: _model(_keras_3("os", "system", {"name": "x"}))),
        "a custom object, for which Keras imports 'os'",
        EXECUTES,
    ),
    "keras-gadget": Hostile(
        "a function of Keras itself that downloads and unpacks (CVE-2025-8747)",
        _archive(lambda _: _model(_keras_3("keras.utils", "get_file", {"origin": "http://x"}))),
        "Keras imports 'keras.utils'",
        EXECUTES,
    ),
    "safe-mode-off": Hostile(
        "a function of Keras that switches its own safe mode off (CVE-2025-9906)",
        _archive(lambda _: _model(_keras_3("keras.config", "enable_unsafe_deserialization", {}))),
        "Keras imports 'keras.config'",
        EXECUTES,
    ),
    "function-by-name": Hostile(
        "a function that Keras imports by name",
        _archive(lambda _: _model(_keras_3("builtins", "function", "eval"))),
        "a function that Keras imports by name",
        EXECUTES,
    ),
    "registered-class": Hostile(
        "a class of the author's own",
        _archive(lambda _: _model({"class_name": "Net", "config": {}, "registered_name": "mine>Net"})),
        "the custom object 'mine>Net'",
        EXECUTES,
    ),
    "torch-in-keras": Hostile(
        "a Keras layer that unpickles a torch module",
        _archive(lambda _: _model({"class_name": "TorchModuleWrapper", "config": {"module": "gASV"}})),
        "a layer that unpickles a torch module",
        EXECUTES,
    ),
    "loss-function": Hostile(
        "a function in `training_config`",
        _hdf5(lambda file, _: file.attrs.__setitem__("training_config", json.dumps({"loss": _keras_3("m", "f", {})}))),
        "attribute 'training_config': a custom object",
        EXECUTES,
    ),
    "keras-stranger": Hostile(
        "a file in `.keras` that does not belong there",
        lambda folder, _: _stranger(folder),
        "assets/vocabulary.txt: does not belong in such a file",
        UNREADABLE,
    ),
    "config-not-json": Hostile(
        "a `model_config` that is not JSON", _configured(lambda _: "{'class_name': 'Lambda'}"), "not JSON", UNREADABLE
    ),
    "config-deep": Hostile(
        "a `model_config` nested 5,000 deep", _configured(lambda _: "[" * 5000), "nested too deeply", UNREADABLE
    ),
    "external-link": Hostile(
        "a link to another file",
        _links(h5py.ExternalLink("/etc/passwd", "/")),
        "a link to another file, '/etc/passwd'",
        UNREADABLE,
    ),
    "soft-link": Hostile("a soft link", _links(h5py.SoftLink("/nowhere")), "a soft link", UNREADABLE),
    "external-storage": Hostile(
        "a dataset whose bytes lie in another file", _hdf5(_external_storage), "lies in other files", UNREADABLE
    ),
    "virtual-dataset": Hostile(
        "a virtual dataset over another file", _hdf5(_virtual), "lies in other files", UNREADABLE
    ),
    "group-cycle": Hostile("a group that holds itself", _hdf5(_cycle), "second link to the same object", UNREADABLE),
    "declared-only": Hostile(
        "a dataset of 4 TB of which no byte was written",
        _hdf5(lambda file, _: file.create_dataset("kernel", (10**6, 10**6), "f4", chunks=(64, 64))),
        "datasets and texts that declare 4,000,000,000,000 bytes",
        UNREADABLE,
    ),
    "declared-only-small": Hostile(
        "a dataset of 4 kB of which no byte was written",
        _hdf5(lambda file, _: file.create_dataset("kernel", (1000,), "f4")),
        "the file does not hold them",
        UNREADABLE,
    ),
    "object-dataset": Hostile(
        "a dataset of texts of any length",
        _hdf5(lambda file, _: file.create_dataset("kernel", data=["a", "b"])),
        "goodnet reads numbers",
        UNREADABLE,
    ),
    "long-name": Hostile(
        "a layer name, one of two, that says it has 4 GB",
        lambda folder, _: _shared_texts(folder, 2, 8, 2**32 - 1),
        "attribute 'layer_names': cannot be read in 256 MiB of memory",
        UNREADABLE,
    ),
    "shared-name": Hostile(
        "one layer name of 1 MB, 3,000 times",
        lambda folder, _: _shared_texts(folder, 3000, 2**20, 2**20),
        "attribute 'layer_names': cannot be read in 256 MiB of memory",
        UNREADABLE,
    ),
    "many-names": Hostile(
        "a list of 200,000 layer names",
        _many_names,
        "a list of 200,000 texts",
        UNREADABLE,
    ),
    "truncated-hdf5": Hostile("an `.h5` file, cut off", _truncated, "truncated file", UNREADABLE),
}


def _stranger(folder: Path) -> Path:
    path = folder / "model.keras"
    path.write_bytes(zipped({"config.json": b"{}", "metadata.json": b"{}", "assets/vocabulary.txt": b"x"}))
    return path


@pytest.mark.parametrize("case", CASES)
def test_hostile_keras_files_are_refused_and_not_run(case: str, tmp_path: Path) -> None:
    check(CASES[case], tmp_path)


def test_the_bytecode_is_real(tmp_path: Path) -> None:
    function = type(_bytecode)(marshal.loads(base64.b64decode(_bytecode(tmp_path / "marker"))), {})
    function(None).close()
    assert (tmp_path / "marker").exists()


def test_a_module_beside_the_file_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The HDF5 scan runs in a process of its own, which must not look for h5py in the folder it is started in."""
    for name in ("h5py.py", "json.py", "numpy.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["kernel"] = np.ones(3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert scan_file("model.h5").safe
    assert not (tmp_path / "marker").exists()
