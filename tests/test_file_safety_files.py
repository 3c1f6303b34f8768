"""Hostile arrays, folders, and things that are no files."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_file_safety_helpers import EXECUTES, UNREADABLE, Hostile, check, file_of, pickled, system, zipped

from goodnet.errors import UnreadableModel
from goodnet.models.file_safety import scan_file


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _entry(start: int, stop: int, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def _npy(descr: str, shape: str = "(2,)", data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def _folder(weights: Callable[[Path, Path], bytes | Path], description: bytes = b"{}") -> Callable[[Path, Path], Path]:
    """A saved model whose weights are these bytes, or a link to this path."""

    def make(folder: Path, marker: Path) -> Path:
        saved = folder / "saved"
        saved.mkdir()
        (saved / "model.json").write_bytes(description)
        content = weights(folder, marker)
        if isinstance(content, Path):
            (saved / "model.safetensors").symlink_to(content)
        else:
            (saved / "model.safetensors").write_bytes(content)
        return saved

    return make


def _outside(folder: Path, _: Path) -> Path:
    (folder / "elsewhere.safetensors").write_bytes(_safetensors({}))
    return folder / "elsewhere.safetensors"


def _pipe(folder: Path, _: Path) -> Path:
    os.mkfifo(folder / "model.pt")
    return folder / "model.pt"


CASES = {
    "npy-objects": Hostile(
        "an `.npy` array of objects, which is a pickle",
        file_of(lambda marker: _npy("'|O'", data=pickled(system(marker)))),
        "would call os.system",
        EXECUTES,
    ),
    "npz-objects": Hostile(
        "the same inside `.npz`",
        file_of(lambda marker: zipped({"w.npy": _npy("'|O'", data=pickled(system(marker)))})),
        "w.npy: a numpy array of Python objects, which is a pickle",
        EXECUTES,
    ),
    "npz-pickle": Hostile(
        "a pickle called `.npy`, which numpy unpickles",
        file_of(lambda marker: zipped({"w.npy": pickled(system(marker))})),
        "w.npy: not an .npy file",
        UNREADABLE,
    ),
    "npy-expression": Hostile(
        "an expression in an `.npy` header",
        file_of(lambda _: _npy("__import__('os').system('true')")),
        "an .npy header that numpy does not write",
        UNREADABLE,
    ),
    "npy-structured": Hostile(
        "an `.npy` array of records with objects",
        file_of(lambda _: _npy("[('a', '|O')]")),
        "an .npy header that numpy does not write",
        UNREADABLE,
    ),
    "npy-huge": Hostile(
        "an `.npy` array that says it has 4 TB",
        file_of(lambda _: _npy("'<f4'", "(1000000, 1000000)", bytes(8))),
        "declares 4,000,000,000,000 bytes where there are 8",
        UNREADABLE,
    ),
    "npy-long-header": Hostile(
        "an `.npy` header of 4 GB",
        file_of(lambda _: b"\x93NUMPY\2\0" + b"\xff\xff\xff\xff{"),
        "an .npy header that says it has 4,294,967,295 bytes",
        UNREADABLE,
    ),
    "safetensors-truncated": Hostile(
        "a safetensors header longer than the file",
        file_of(lambda _: _safetensors(b"{}", length=1000)),
        "truncated",
        UNREADABLE,
    ),
    "safetensors-huge-header": Hostile(
        "a safetensors header of 90 MB",
        file_of(lambda _: _safetensors(b"{" + b" " * 20_000_000 + b"}")),
        "JSON text of 20,000,002 bytes",
        UNREADABLE,
    ),
    "safetensors-overlap": Hostile(
        "two tensors over the same bytes",
        file_of(lambda _: _safetensors({"a": _entry(0, 4), "b": _entry(0, 4)}, bytes(4))),
        "overlaps another one",
        UNREADABLE,
    ),
    "safetensors-gap": Hostile(
        "bytes between tensors that belong to none",
        file_of(lambda _: _safetensors({"a": _entry(0, 4), "b": _entry(8, 12)}, bytes(12))),
        "leaves a gap",
        UNREADABLE,
    ),
    "safetensors-beyond": Hostile(
        "a tensor beyond the end of the file",
        file_of(lambda _: _safetensors({"a": _entry(0, 4 << 40, shape=(1 << 40,))}, bytes(4))),
        "the tensors end at byte",
        UNREADABLE,
    ),
    "safetensors-type": Hostile(
        "a tensor of an unknown type",
        file_of(lambda _: _safetensors({"a": _entry(0, 0, "OBJECT", (0,))})),
        "tensor 'a': type, shape and offsets do not fit",
        UNREADABLE,
    ),
    "safetensors-double": Hostile(
        "the same tensor twice, so that readers differ",
        file_of(lambda _: _safetensors(b'{"a":0,"a":1}')),
        "the same key twice",
        UNREADABLE,
    ),
    "safetensors-deep": Hostile(
        "a header nested 100,000 deep",
        file_of(lambda _: _safetensors(b'{"a":' + b"[" * 100_000)),
        "JSON nested too deeply",
        UNREADABLE,
    ),
    "folder-pickle": Hostile(
        "a saved model whose `model.safetensors` is a pickle",
        _folder(lambda _, marker: pickled(system(marker))),
        "model.safetensors, byte 2: would call os.system",
        EXECUTES,
    ),
    "folder-link": Hostile(
        "a saved model with a symbolic link out of the folder",
        _folder(_outside),
        "a link to a file outside of the folder",
        UNREADABLE,
    ),
    "folder-description": Hostile(
        "a saved model whose `model.json` is no object",
        _folder(lambda *_: _safetensors({}), b"[]"),
        "model.json: not a JSON object",
        UNREADABLE,
    ),
    "folder-empty": Hostile(
        "a folder that holds no saved model", lambda folder, _: folder, "model.safetensors: missing", UNREADABLE
    ),
    "empty": Hostile("an empty file", file_of(lambda _: b""), "an empty file", UNREADABLE),
    "pipe": Hostile("a named pipe, which never ends", _pipe, "a pipe, socket or device", UNREADABLE),
    "device": Hostile("a device", lambda *_: Path("/dev/zero"), "a pipe, socket or device", UNREADABLE),
    "onnx": Hostile(
        "an ONNX file", file_of(lambda _: b"\x08\x08\x12\x07pytorch"), "does not read ONNX files yet", UNREADABLE
    ),
    "unknown": Hostile("a file of no known kind", file_of(lambda _: b"GGUF\3\0\0\0"), "no kind of model", UNREADABLE),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_files_are_refused_and_not_run(case: str, tmp_path: Path) -> None:
    check(CASES[case], tmp_path)


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel, match="No such file"):
        scan_file(tmp_path / "none.pt")
