"""Files that are in order pass, and what passes also loads."""

import collections
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_file_safety_helpers import pickled, plain_tensor_zip, storage, system, tensor, text, torch_zip
from torch import nn
from torch._weights_only_unpickler import _get_allowed_globals

from goodnet.errors import UnsafeFile
from goodnet.models.file_safety import Finding, SafetyReport, require_safe, scan_file
from goodnet.models.scan.torch_objects import TorchObjects

ONE = torch.arange(12.0).reshape(3, 4)
NET = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
CHECKPOINTS: dict[str, Any] = {
    "state_dict": NET.state_dict(),
    "training checkpoint": {
        "net": NET.state_dict(),
        "optimizer": torch.optim.Adam(NET.parameters()).state_dict(),
        "scheduler": {"milestones": collections.Counter([60, 80]), "last_epoch": 3},
        "epoch": 3,
        "accuracy": 0.5,
        "name": "é",
        "history": [(1, 2.0), (2, None)],
        "seen": {1, 2},
        "digest": b"\xff\x00",
    },
    "tensors that share": {"a": ONE, "b": ONE[1:], "c": ONE.t(), "parameter": nn.Parameter(ONE)},
    "odd tensors": {
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.0),
        "expanded": torch.zeros(1).expand(5, 5),
        "half": ONE.half(),
        "bfloat16": ONE.bfloat16(),
        "complex": ONE.to(torch.complex64),
        "long": ONE.long(),
        "bool": ONE > 3,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "size": torch.Size([1, 2]),
    },
    "one tensor": ONE,
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_torch_saves_is_safe(name: str, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(CHECKPOINTS[name], path, _use_new_zipfile_serialization=not legacy)
    report = require_safe(path)
    assert report.findings == ()
    assert report.kind == ("torch legacy pickle" if legacy else "torch zip")


def test_newer_types_of_torch_are_safe(tmp_path: Path) -> None:
    torch.save({"a": ONE.to(torch.uint16), "b": ONE.to(torch.float8_e4m3fn)}, tmp_path / "model.pt")
    assert require_safe(tmp_path / "model.pt").safe


def test_the_hand_made_archive_is_safe_and_loads(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(plain_tensor_zip())
    assert require_safe(tmp_path / "model.pt").safe
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_safe(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "model.npz", **{"conv1/W": np.ones((3, 4), "f4"), "names": np.array(["a", "bc"]), "n": np.int64(3)})
    np.save(tmp_path / "model.npy", np.asfortranarray(np.ones((3, 4))))
    assert require_safe(tmp_path / "model.npz").kind == "npz"
    assert require_safe(tmp_path / "model.npy").kind == "npy"


def test_what_safetensors_saves_is_safe(tmp_path: Path) -> None:
    save_file({"a": ONE, "b": torch.empty(0, 3), "c": ONE.bfloat16()}, tmp_path / "model.safetensors", {"x": "y"})
    assert require_safe(tmp_path / "model.safetensors").kind == "safetensors"
    (tmp_path / "model.json").write_text("{}")
    report = require_safe(tmp_path)
    assert (report.kind, report.findings) == ("folder", ())
    (tmp_path / "README.md").write_text("")
    assert [finding.severity for finding in require_safe(tmp_path).findings] == ["note"]


def test_what_h5py_saves_is_safe(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv", b"dense"]
        file.attrs["model_config"] = '{"class_name": "Sequential", "config": {"name": "net", "layers": []}}'
        file.create_dataset("conv/kernel", data=np.zeros((40, 50), "f4"), compression="gzip", shuffle=True)
        file["dense/bias"] = np.ones(3)
        file["step"] = np.int64(3)
        file["conv"].attrs.create("weight_names", np.empty(0, "S1"))
    assert require_safe(tmp_path / "model.h5").kind == "hdf5"


@pytest.mark.real
def test_real_models_of_strangers_are_safe(shared_data: Path) -> None:
    paths = sorted((shared_data / "models").iterdir())
    assert len(paths) >= 12
    assert [str(path) for path in paths if not scan_file(path).safe] == []


def test_a_report_says_what_and_where(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(torch_zip(pickled(system(tmp_path / "marker"))))
    report = scan_file(str(path))
    message = "would call os.system, which runs commands on this computer"
    finding = Finding("executes", "m/data.pkl, byte 2", "os.system", message)
    assert report.findings[0] == finding
    assert isinstance(report, SafetyReport)
    assert (report.file, report.size_bytes) == (path, path.stat().st_size)
    assert len(report.sha256) == 64
    with pytest.raises(UnsafeFile) as caught:
        require_safe(path)
    assert caught.value.findings == (str(finding),)
    assert "nothing was executed" in str(caught.value)
    assert "safetensors" in str(caught.value)


def test_scanning_does_not_import_torch_or_numpy(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(plain_tensor_zip())
    code = "import sys; from goodnet.models.file_safety import scan_file; assert scan_file(sys.argv[1]).safe; "
    code += "assert not {'torch', 'numpy', 'h5py'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.pt")], check=True)


def test_every_harmless_name_is_harmless_to_torch_too() -> None:
    vocabulary = TorchObjects({}, 0).vocabulary()
    assert {*vocabulary.calls, *vocabulary.values, *vocabulary.unread} <= set(_get_allowed_globals())


_SMALL = st.integers(-1, 6)


@settings(max_examples=150, deadline=None)
@given(
    count=_SMALL,
    size=st.lists(_SMALL, max_size=3),
    stride=st.lists(_SMALL, max_size=3),
    offset=_SMALL,
    kind=st.sampled_from(["FloatStorage", "LongStorage", "ByteStorage"]),
    there=st.integers(0, 40),
)
def test_a_tensor_that_passes_also_loads(
    count: int, size: list[int], stride: list[int], offset: int, kind: str, there: int, tmp_path_factory: Any
) -> None:
    made = tensor(storage(count, kind=kind), tuple(size), tuple(stride), offset)
    content = torch_zip(pickled(b"}" + text("w") + made + b"s"), {"m/data/0": bytes(there)})
    path = tmp_path_factory.getbasetemp() / "tensor.pt"
    path.write_bytes(content)
    if scan_file(path).safe:
        assert torch.load(io.BytesIO(content), weights_only=True)["w"].shape == tuple(size)
