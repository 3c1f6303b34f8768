"""What a pickle would do, found by running its opcodes on inert values: nothing is imported, called or built.

The machine follows ``torch.load(weights_only=True)`` opcode by opcode and is stricter wherever it differs, so that a
pickle without findings also loads there. Opcodes that only other unpicklers know are followed just far enough to name
what they would import.
"""

import io
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # what Python 2 called things
from collections import OrderedDict
from typing import Any

from goodnet.models.scan.base import MIB, Broken, Finding
from goodnet.models.scan.names import danger
from goodnet.models.scan.values import SCALARS, Global, Instance, Vocabulary, check_nesting

PICKLE_LIMIT = 64 * MIB
"""Longest stretch of pickles that is scanned, in bytes; tensors lie outside."""
OPCODE_LIMIT = 2_000_000
FINDING_LIMIT = 100
_NAME_LIMIT = 200
_ARGUMENT_LIMIT = 8
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class PickleScan:
    """One pickle, followed to its STOP.

    Attributes:
        root: the inert value that the pickle builds; meaningless if there are findings.
        end: the offset after STOP, or None if the pickle breaks off.
    """

    def __init__(self, data: bytes, start: int, vocabulary: Vocabulary):
        self.root: object = Instance()
        self.end: int | None = None
        self._data, self._vocabulary = data, vocabulary
        self._position = start
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memory: dict[int, Any] = {}
        self._executes: dict[str, tuple[int, str]] = {}
        self._problems: dict[str, int] = {}
        self._models: set[str] = set()
        self._run(start)

    @property
    def findings(self) -> list[Finding]:
        """What the pickle would execute, then what cannot be read; each once, where it first occurs."""
        found = []
        for name, (position, message) in self._executes.items():
            if name in self._models:
                message = f"a whole pickled model (class {name}): save its state_dict instead"
            found.append(Finding("executes", f"byte {position}", name, message))
        problems = self._problems.items()
        return found + [Finding("unreadable", f"byte {position}", "", text) for text, position in problems]

    def _problem(self, message: str) -> None:
        if len(self._problems) < FINDING_LIMIT:
            self._problems.setdefault(message, self._position)

    def _execute(self, name: str, message: str = "") -> None:
        if len(self._executes) < FINDING_LIMIT and name not in self._executes:
            self._executes[name] = self._position, message or danger(name)

    def _run(self, start: int) -> None:
        stream = io.BytesIO(self._data)
        stream.seek(start)
        try:
            for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
                self._position = position or 0
                if count > OPCODE_LIMIT:
                    raise Broken(f"more than {OPCODE_LIMIT:,} pickle operations")
                try:
                    self._step(opcode, argument, stream.tell())
                except Broken as error:  # go on: what comes later may still execute in another unpickler
                    self._problem(str(error))
                    self._stack.append(Instance())
            self.end = stream.tell()
        except Broken as error:
            self._problem(str(error))
        # DeprecationWarning: odd escapes in text opcodes, where warnings are errors
        except (ValueError, OverflowError, DeprecationWarning) as error:
            self._problem(f"the pickle breaks off: {str(error)[:100]}")

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any, end: int) -> None:
        """Do what one operation that torch knows would do, on inert values."""
        match opcode.name:
            case "BINGET" | "LONG_BINGET":
                self._recall(argument)
            case "BINPUT" | "LONG_BINPUT":
                self._memory[argument] = self._top()
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                self._stack.append(argument)
            case "SHORT_BINSTRING":
                self._stack.append(_utf8(argument))
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE" as name:
                self._stack.append(_CONSTANTS[name])
            case "EMPTY_LIST":
                self._stack.append([])
            case "EMPTY_DICT":
                self._stack.append({})
            case "MARK":
                self._outer.append(self._stack)
                self._stack = []
            case "TUPLE":
                items = self._pop_to_mark()
                self._stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                self._tuple_of(int(name[-1]))
            case "APPEND":
                self._append([self._pop()])
            case "APPENDS":
                self._append(self._pop_to_mark())
            case "SETITEM":
                self._set_items([self._pop(), self._pop()][::-1])
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case "BINPERSID":
                self._persistent()
            case "GLOBAL" | "REDUCE" | "BUILD" | "NEWOBJ" | "PROTO" | "STOP":
                self._act(opcode, argument, end)
            case name:
                self._problem(f"pickle operation {name}, which torch.load(weights_only=True) does not know")
                self._foreign_step(opcode, argument, end)

    def _act(self, opcode: pickletools.OpcodeInfo, argument: Any, end: int) -> None:
        match opcode.name:
            case "GLOBAL":
                self._import_text(end)
            case "REDUCE":
                self._call()
            case "BUILD":
                self._set_attributes()
            case "NEWOBJ":
                self._new_object(argument_count=1)
            case "PROTO" if argument != 2:
                self._problem(f"pickle protocol {argument}; torch.save writes protocol 2 unless told otherwise")
            case "STOP":
                self._finish()

    def _foreign_step(self, opcode: pickletools.OpcodeInfo, argument: Any, end: int) -> None:
        """An operation that only other unpicklers know; of most, only the effect on the stack's depth is followed."""
        match opcode.name:
            case "SHORT_BINUNICODE" | "BINUNICODE8" | "UNICODE" | "STRING" | "BINSTRING":
                self._stack.append(argument)
            case "PUT":
                self._memory[argument] = self._top()
            case "MEMOIZE":
                self._memory[len(self._memory)] = self._top()
            case "GET":
                self._recall(argument)
            case "DUP":
                self._stack.append(self._top())
            case "STACK_GLOBAL":
                self._import_stack()
            case "EXT1" | "EXT2" | "EXT4":
                self._execute(
                    f"extension code {argument}", "would import a name from Python's registry of extension codes"
                )
                self._stack.append(Instance())
            case "INST":
                self._pop_to_mark()
                self._import_text(end)
            case "OBJ":
                self._stack.extend(self._pop_to_mark()[:1])
                self._new_object(argument_count=0)
            case "NEWOBJ_EX":
                self._new_object(argument_count=2)
            case _:
                self._follow_depth(opcode)

    # values on the stack

    def _pop(self) -> Any:
        if not self._stack:
            raise Broken("the pickle takes more from its stack than it put there")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            raise Broken("the pickle uses an empty stack")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        if not self._outer:
            raise Broken("the pickle takes more from its stack than it put there")
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _follow_depth(self, opcode: pickletools.OpcodeInfo) -> None:
        before = list(opcode.stack_before)
        if pickletools.markobject in before:
            self._pop_to_mark()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self._pop()
        self._stack.extend(Instance() for _ in opcode.stack_after)

    def _finish(self) -> None:
        self.root = self._pop()
        if self._stack or self._outer:
            raise Broken("the pickle ends with values left on its stack")
        if not self._executes:
            check_nesting(self.root)

    def _tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _append(self, items: list[Any]) -> None:
        if type(self._top()) is not list:
            raise Broken("the pickle appends to something that is not a list")
        self._top().extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if type(self._top()) not in (dict, OrderedDict) or len(items) % 2:
            raise Broken("the pickle sets items of something that is not a dictionary")
        if not all(type(key) in SCALARS for key in items[::2]):
            raise Broken("a dictionary key that is neither text nor a number")
        self._top().update(zip(items[::2], items[1::2], strict=True))

    def _recall(self, index: int) -> None:
        if index not in self._memory:
            raise Broken("the pickle recalls what it never memorized")
        self._stack.append(self._memory[index])

    # names, calls and objects

    def _import_text(self, end: int) -> None:
        # pickletools unescapes backslashes here and unpicklers do not: read the bytes themselves
        module, name = self._data[self._position + 1 : end].split(b"\n")[:2]
        self._import(module.decode(errors="backslashreplace"), name.decode(errors="backslashreplace"))

    def _import_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is str and type(module) is str:
            self._import(module, name)
        else:
            self._execute("a computed name", "would import a name that the file computes while it loads")
            self._stack.append(Instance())

    def _import(self, module: str, name: str) -> None:
        module, name = module[:_NAME_LIMIT], name[:_NAME_LIMIT]
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full, vocabulary = f"{module}.{name}", self._vocabulary
        if full in vocabulary.unread:
            self._problem(f"{full}: goodnet reads dense tensors in lists and dictionaries only")
        elif full not in vocabulary.calls and full not in vocabulary.values:
            self._execute(full)
        self._stack.append(Global(full))

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Global):
            self._execute("a computed function", "would call something that the file computes while it loads")
            raise Broken("calls a computed function")
        if function.name == "copyreg._reconstructor" and type(arguments) is tuple and arguments:
            self._stack.append(_instance_of(arguments[0]))
        elif function.name not in self._vocabulary.calls:
            self._problem(f"calls {function.name}")
            self._stack.append(Instance(function.name))
        elif type(arguments) is not tuple or len(arguments) > _ARGUMENT_LIMIT:
            raise Broken(f"{function.name} is called with something that is not a short tuple")
        else:
            self._stack.append(self._vocabulary.calls[function.name](arguments))

    def _new_object(self, argument_count: int) -> None:
        for _ in range(argument_count):
            self._pop()
        cls = self._pop()
        if not isinstance(cls, Global):
            self._execute("a computed class", "would build an object of a class that the file computes while it loads")
        self._problem("builds an object of a class; goodnet reads dense tensors in lists and dictionaries only")
        self._stack.append(_instance_of(cls))

    def _set_attributes(self) -> None:
        state, target = self._pop(), self._top()
        if type(target) is OrderedDict and type(state) is dict and state.keys() <= {"_metadata"}:
            target.__dict__.update(state)  # what torch.nn.Module.state_dict() leaves on its result
            return
        parts = state[:2] if type(state) is tuple else (state,)
        if isinstance(target, Instance) and any(isinstance(part, dict) and "_modules" in part for part in parts):
            self._models.add(target.of)
        self._problem("sets the attributes of an object; goodnet reads dense tensors in lists and dictionaries only")

    def _persistent(self) -> None:
        identity = self._pop()
        if type(identity) is tuple and len(identity) > 1 and identity[0] == "module":
            self._problem("holds the source code of a model's classes")
            self._stack.append(identity[1])
        elif self._vocabulary.persistent is None:
            raise Broken("a persistent id where none belongs")
        else:
            self._stack.append(self._vocabulary.persistent(identity))


def _utf8(text: str) -> str:
    """Python 2 text: pickletools gives the bytes as Latin-1, torch reads them as UTF-8."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise Broken("Python 2 text that is not UTF-8") from None


def _instance_of(cls: object) -> Instance:
    return Instance(cls.name if isinstance(cls, Global) else "")
