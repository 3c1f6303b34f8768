"""Hostile pickles: each would create a marker file if anything unpickled it freely."""

import pickle
from pathlib import Path

import pytest
from test_file_safety_helpers import (
    EXECUTES,
    Hostile,
    called,
    check,
    file_of,
    pickled,
    system,
    text,
    torch_legacy,
    torch_zip,
)

# names by which payloads have passed scanners that list dangerous names instead of harmless ones
BYPASSES = """
    asyncio.unix_events._UnixSubprocessTransport._start  bdb.Bdb.run  builtins.eval  builtins.exec  builtins.getattr
    builtins.__import__  cProfile.runctx  code.InteractiveInterpreter.runcode  commands.getoutput  ctypes.CDLL
    distutils.file_util.write_file  doctest.debug_script  functools.partial  idlelib.pyshell.ModifiedInterpreter.runcode
    importlib.import_module  _io.FileIO  linecache.getline  logging.config.listen  marshal.loads
    numpy.testing._private.utils.runstring  operator.attrgetter  pickle.loads  pip.main  pkgutil.resolve_name  pty.spawn
    pydoc.locate  pydoc.pipepager  runpy.run_path  shutil.copyfile  ssl.get_server_certificate  subprocess.Popen
    timeit.timeit  torch._inductor.codecache.compile_file  torch.hub.load  torch.jit.unsupported_tensor_ops.execWrapper
    torch.load  torch.package.PackageImporter  torch.serialization.load  torch.utils._config_module.load_config
    torch.utils.collect_env.run  types.FunctionType  urllib.request.urlretrieve  venv.create  webbrowser.open
""".split()  # noqa: SIM905


def _bypass(name: str) -> Hostile:
    module, attribute = name.rsplit(".", 1)
    make = file_of(lambda marker: torch_zip(pickled(called(module, attribute, text(f"touch {marker}")))))
    says = "subprocess.getoutput" if name == "commands.getoutput" else name  # Python 2 had another name for it
    return Hostile(f"`data.pkl` calls `{name}`", make, says, EXECUTES)


def _in_zip(what: str, operations: bytes, says: str, exit_code: int) -> Hostile:
    return Hostile(what, file_of(lambda _: torch_zip(pickled(operations))), says, exit_code)


def _whole_model(folder: Path, legacy: bool) -> Path:
    import torch

    path = folder / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=not legacy)
    return path


def _protocol_4(marker: Path) -> bytes:
    """The names come off the stack, one of them through the memo."""
    short = b"\x8c\x02os\x94" + b"0" + b"h\x00" + b"\x8c\x06system" + b"\x93"
    return b"\x80\x04" + short + b"(" + text(f"touch {marker}") + b"tR."


CASES = {f"bypass-{name}": _bypass(name) for name in BYPASSES} | {
    "os-system-zip": Hostile(
        "`data.pkl` calls `os.system`",
        file_of(lambda marker: torch_zip(pickled(system(marker)))),
        "m/data.pkl, byte 2: would call os.system, which runs commands on this computer",
        EXECUTES,
    ),
    "os-system-legacy": Hostile(
        "the same in the format before torch 1.6",
        file_of(lambda marker: torch_legacy(pickled(system(marker)))),
        "would call os.system",
        EXECUTES,
    ),
    "legacy-first-pickles": Hostile(
        "a payload in the list of storage keys, behind an object that is in order",
        file_of(lambda marker: torch_legacy(pickled(b"}"), keys=pickled(system(marker)))),
        "would call os.system",
        EXECUTES,
    ),
    "plain-pickle": Hostile(
        "a bare pickle, no torch file", file_of(lambda marker: pickled(system(marker))), "os.system", EXECUTES
    ),
    "second-pickle": Hostile(
        "a harmless pickle, the payload in another one behind it",
        file_of(lambda marker: pickled(b"}") + pickled(system(marker))),
        "os.system",
        EXECUTES,
    ),
    "payload-then-garbage": Hostile(
        "the payload runs, then the pickle breaks off",
        file_of(lambda marker: torch_zip(b"\x80\x02" + system(marker) + b"\xff\xff garbage")),
        "os.system",
        EXECUTES,
    ),
    "garbage-then-payload": Hostile(
        "an operation on an empty stack before the payload",
        file_of(lambda marker: torch_zip(b"\x80\x020" + system(marker) + b".")),
        "os.system",
        EXECUTES,
    ),
    "stack-global": Hostile(
        "protocol 4: the name is put together on the stack", file_of(_protocol_4), "os.system", EXECUTES
    ),
    "memo-place": Hostile(
        "the name comes out of a memo place that was given out of order",
        file_of(
            lambda marker: (
                b"\x80\x04\x8c\x02osq\x07\x8c\x06system\x940h\x07h\x01\x93(" + text(f"touch {marker}") + b"tR."
            )
        ),
        "os.system",
        EXECUTES,
    ),
    "dropped-result": Hostile(
        "the payload's result is thrown away, a sound checkpoint is left",
        file_of(lambda marker: torch_zip(pickled(system(marker) + b"0}"), {})),
        "os.system",
        EXECUTES,
    ),
    "computed-name": Hostile(
        "the name to import is the result of a call",
        file_of(lambda _: b"\x80\x04" + called("collections", "OrderedDict") + b"\x8c\x06system\x93)R."),
        "would import a name that the file computes while it loads",
        EXECUTES,
    ),
    "computed-function": Hostile(
        "the function to call is the result of a call",
        file_of(lambda _: torch_zip(pickled(called("collections", "OrderedDict") + b")R"))),
        "would call something that the file computes while it loads",
        EXECUTES,
    ),
    "instance": Hostile(
        "protocol 0: `INST`",
        file_of(lambda marker: b"(S'touch " + str(marker).encode() + b"'\nios\nsystem\n."),
        "os.system",
        EXECUTES,
    ),
    "object": Hostile(
        "protocol 1: `OBJ`",
        file_of(lambda marker: b"(cos\nsystem\n" + text(f"touch {marker}") + b"o."),
        "os.system",
        EXECUTES,
    ),
    "new-object": Hostile(
        "protocol 2: `NEWOBJ`",
        file_of(lambda marker: torch_zip(pickled(b"csubprocess\nPopen\n" + text(f"touch {marker}") + b"\x85\x81"))),
        "subprocess.Popen",
        EXECUTES,
    ),
    "new-object-keywords": Hostile(
        "protocol 4: `NEWOBJ_EX`",
        file_of(lambda marker: b"\x80\x04csubprocess\nPopen\n" + text(f"touch {marker}") + b"\x85}\x92."),
        "subprocess.Popen",
        EXECUTES,
    ),
    "extension-code": _in_zip(
        "a name from Python's registry of extension codes", b"\x82\x01)R", "extension codes", EXECUTES
    ),
    "python-2-name": _in_zip(
        "Python 2's name for a built-in", called("__builtin__", "eval", text("1")), "builtins.eval", EXECUTES
    ),
    "dotted-name": _in_zip(
        "an attribute of a module that harmless names come from",
        called("torch._utils", "sys.modules", text("os")),
        "torch._utils.sys.modules",
        EXECUTES,
    ),
    "escaped-name": _in_zip(
        "a name that only looks harmless once backslashes are read",
        called("collections", "Ordered\\x44ict"),
        "collections.Ordered\\x44ict",
        EXECUTES,
    ),
    "name-with-space": _in_zip(
        "a harmless name with a space behind it", called("collections", "OrderedDict "), "not on the list", EXECUTES
    ),
    "default-dict": _in_zip(
        "a name that nobody calls dangerous and nobody needs",
        called("collections", "defaultdict"),
        "collections.defaultdict, which is not on the list of harmless names",
        EXECUTES,
    ),
    "numpy-number": _in_zip(
        "a numpy number in a checkpoint",
        called("numpy.core.multiarray", "scalar"),
        "a pickled numpy object (numpy.core.multiarray.scalar)",
        EXECUTES,
    ),
    "whole-model-zip": Hostile(
        "`torch.save(model)` instead of its state_dict",
        lambda folder, _: _whole_model(folder, legacy=False),
        "a whole pickled model (class torch.nn.modules.linear.Linear): save its state_dict instead",
        EXECUTES,
    ),
    "whole-model-legacy": Hostile(
        "the same in the format before torch 1.6",
        lambda folder, _: _whole_model(folder, legacy=True),
        "a whole pickled model (class torch.nn.modules.linear.Linear)",
        EXECUTES,
    ),
    "own-model-class": _in_zip(
        "a whole model of the author's own class",
        called("copyreg", "_reconstructor", b"cmodels\nNet\n", b"N", b"N") + b"}" + text("_modules") + b"}sb",
        "a whole pickled model (class models.Net)",
        EXECUTES,
    ),
    "own-model-object": _in_zip(
        "the same in protocol 1: `OBJ`",
        b"]" + b"(cmodels\nNet\no}" + text("_modules") + b"}sba",
        "a whole pickled model (class models.Net)",
        EXECUTES,
    ),
    "persistent-module": _in_zip(
        "source code in a persistent id",
        b"(" + text("module") + b"cmodels\nNet\n" + text("net.py") + text("import os") + b"tQ",
        "models.Net",
        EXECUTES,
    ),
    "joblib": Hostile(
        "what joblib writes",
        file_of(lambda _: b"\x80\x03cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}b."),
        "joblib.numpy_pickle.NumpyArrayWrapper",
        EXECUTES,
    ),
    "nested-pickle": _in_zip(
        "a pickle in a text, given to `pickle.loads`",
        called("_pickle", "loads", text("cos\nsystem\n(S'true'\ntR.")),
        "_pickle.loads, which loads further code hidden in the file",
        EXECUTES,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_pickles_are_refused_and_not_run(case: str, tmp_path: Path) -> None:
    check(CASES[case], tmp_path)


@pytest.mark.parametrize("case", ["plain-pickle", "stack-global", "memo-place", "instance", "object"])
def test_the_payloads_are_real(case: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(CASES[case].make(tmp_path, marker).read_bytes())
    assert marker.exists()
