"""What to tell a person about a name that a pickle would import."""

from collections.abc import Collection

_COMMANDS = "runs commands on this computer"
_CODE = "runs code of the file's choice"
_IMPORTS = "imports and runs further modules"
_UNPICKLES = "loads further code hidden in the file"
_NETWORK = "talks to the network"
_FILES = "reads or writes files"

# Only words for the message: whatever is not on the list of harmless names is refused, known here or not.
_MODULE_TEXTS = {
    _COMMANDS: "os posix nt subprocess _posixsubprocess pty commands popen2 multiprocessing asyncio pexpect sh",
    _CODE: """
        sys code codeop timeit bdb pdb cProfile profile trace doctest idlelib lib2to3 pip ensurepip venv ctypes _ctypes
        cffi types functools _functools operator _operator signal threading _thread numpy.testing numpy.f2py gc inspect
        torch.jit torch.hub torch.utils.cpp_extension torch.utils._config_module torch.fx torch.testing setuptools
        distutils test unittest site ast compileall concurrent tkinter torch.distributed torch._inductor torch._dynamo
    """,
    _IMPORTS: "importlib _frozen_importlib runpy imp pkgutil pydoc zipimport torch.package",
    _UNPICKLES: "pickle _pickle cPickle dill cloudpickle joblib marshal shelve copyreg torch.serialization",
    _NETWORK: "socket _socket ssl urllib requests http httpx ftplib smtplib webbrowser xmlrpc telnetlib aiohttp",
    _FILES: "io _io shutil pathlib linecache tempfile glob fileinput codecs logging zipfile tarfile sqlite3",
}
_MODULES = {words: frozenset(modules.split()) for words, modules in _MODULE_TEXTS.items()}
_NAMES = {
    _CODE: ("builtins.eval", "builtins.exec", "builtins.compile", "builtins.getattr", "builtins.map", "builtins.apply"),
    _IMPORTS: ("builtins.__import__",),
    _FILES: ("builtins.open", "builtins.file"),
    _UNPICKLES: ("torch.load", "numpy.load", "pandas.read_pickle"),
}
_MODELS = ("torch.nn", "torchvision", "timm", "torch.optim", "segmentation_models_pytorch", "transformers")
_NUMPY = ("numpy", "_numpy")


def danger(name: str) -> str:
    """What loading a pickle that imports ``name`` ("module.attribute") would do, as a sentence for a person."""
    for words, names in _NAMES.items():
        if name in names:
            return f"would call {name}, which {words}"
    for words, modules in _MODULES.items():
        if _inside(name, modules):
            return f"would call {name}, which {words}"
    if _inside(name, _MODELS):
        return f"a whole pickled model or optimizer (class {name}): save its state_dict instead"
    if _inside(name, _NUMPY):
        return f"a pickled numpy object ({name}), which torch.load(weights_only=True) refuses too: save it as a tensor"
    return f"would import and call {name}, which is not on the list of harmless names"


def _inside(name: str, modules: Collection[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:count]) in modules for count in range(1, len(parts)))
