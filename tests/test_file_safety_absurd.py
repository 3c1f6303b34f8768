"""Pickles that would run nothing, and still are not what they should be: absurd, endless, or damaged."""

import pickle
import struct
from pathlib import Path

import pytest
from test_file_safety_helpers import (
    LEGACY_HEAD,
    UNREADABLE,
    Hostile,
    called,
    check,
    file_of,
    pickled,
    storage,
    system,
    tensor,
    text,
    torch_legacy,
    torch_zip,
)


def _in_zip(what: str, operations: bytes, says: str) -> Hostile:
    return Hostile(what, file_of(lambda _: torch_zip(pickled(operations))), says, UNREADABLE)


CASES = {
    "codec": _in_zip(
        "`_codecs.encode` with a codec that unpacks or imports",
        called("_codecs", "encode", text("x"), text("zip")),
        "bytes that are not as Python writes them",
    ),
    "byte-array": _in_zip(
        "`bytearray(10**12)`", called("builtins", "bytearray", b"\x8a\x05\x00\x10\xa5\xd4\xe8"), "bytearray"
    ),
    "persistent-id": _in_zip("a persistent id that is no storage", text("x") + b"Q", "persistent id"),
    "attributes": _in_zip(
        "an attribute set on an OrderedDict",
        called("collections", "OrderedDict") + b"}" + text("items") + b"Nsb",
        "sets the attributes of an object",
    ),
    "protocol-4": Hostile(
        "a harmless protocol 4 pickle, which torch cannot load either",
        file_of(lambda _: torch_zip(pickle.dumps({"epoch": 1}, protocol=4))),
        "pickle protocol 4",
        UNREADABLE,
    ),
    "harmless-pickle": Hostile(
        "a bare pickle of a dictionary",
        file_of(lambda _: pickle.dumps({"epoch": 1}, protocol=2)),
        "a pickle that torch.save did not write",
        UNREADABLE,
    ),
    "memo-bomb": _in_zip(
        "a value in memo place 2**32 - 1, recalled from the next",
        b"}r\xff\xff\xff\xffj\xfe\xff\xff\xff",
        "recalls what it never memorized",
    ),
    "endless-text": Hostile(
        "a text that says it has 2**60 bytes",
        file_of(lambda _: torch_zip(b"\x80\x02\x8d" + struct.pack("<Q", 2**60) + b"x.")),
        "the pickle breaks off",
        UNREADABLE,
    ),
    "billion-laughs": _in_zip(
        "pairs of pairs that make 2**40 values when written out",
        b")" + b"q\x00h\x00\x86" * 40,
        "written out",
    ),
    "deep": _in_zip("tuples nested 20,000 deep", b")" + b"\x85" * 20_000, "nested more than 64 deep"),
    "cycle": _in_zip("a list that holds itself", b"]q\x00h\x00a", "an object that holds itself"),
    "items-of-a-tensor": _in_zip(
        "an item set on a tensor, which wrote over memory in older torch",
        tensor(storage()) + b"K\x00K\x01s",
        "sets items of something that is not a dictionary",
    ),
    "tuple-key": _in_zip(
        "nested tuples as a key, which take forever to hash",
        b"}" + b")" + b"q\x00h\x00\x86" * 40 + b"Ns",
        "a dictionary key that is neither text nor a number",
    ),
    "many-copies": _in_zip(
        "one text of 1 MB, copied a thousand times",
        text("a" * 2**20) + b"q\x000(" + (called("_codecs", "encode", b"h\x00", text("latin1")) * 1000) + b"t",
        "bytes of sets, counters and texts",
    ),
    "after-the-pickle": Hostile(
        "bytes behind the pickle in `data.pkl`",
        file_of(lambda marker: torch_zip(pickled(b"}") + pickled(system(marker)), {})),
        "bytes after the end of the pickle",
        UNREADABLE,
    ),
    "after-the-storages": Hostile(
        "bytes behind the last storage of a file before torch 1.6",
        file_of(lambda marker: torch_legacy(pickled(b"}")) + pickled(system(marker))),
        "the storages end at byte",
        UNREADABLE,
    ),
    "missing-storage": Hostile(
        "a tensor whose storage is not in the archive",
        file_of(lambda _: torch_zip(pickled(tensor(storage())), {})),
        "declares 16 bytes; the file holds 0",
        UNREADABLE,
    ),
    "huge-storage": _in_zip(
        "a storage of 2**40 numbers in 16 bytes", tensor(storage(2**40)), "declares 4,398,046,511,104 bytes"
    ),
    "beyond-storage": _in_zip(
        "a tensor that reaches beyond its storage", tensor(storage(), offset=1), "beyond the end"
    ),
    "expanded-tensor": _in_zip(
        "one number, expanded to 4 TB", tensor(storage(), size=(2**38,), stride=(0,)), "far more memory"
    ),
    "unused-storage": Hostile(
        "a pickle that poses as a storage",
        file_of(lambda marker: torch_zip(pickled(b"}"), {"m/data/0": pickled(system(marker))})),
        "belongs to no tensor",
        UNREADABLE,
    ),
    "legacy-truncated": Hostile(
        "a file before torch 1.6, cut off",
        file_of(lambda _: LEGACY_HEAD + b"\x80\x02}X\x05\x00"),
        "the pickle breaks off",
        UNREADABLE,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_absurd_pickles_are_refused(case: str, tmp_path: Path) -> None:
    check(CASES[case], tmp_path)
