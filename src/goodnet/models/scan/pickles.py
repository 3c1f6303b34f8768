"""What a pickle would do, found by running its opcodes on inert values: nothing is imported, called or built.

The machine follows ``torch.load(weights_only=True)`` opcode by opcode and is stricter wherever it differs, so that a
pickle without findings also loads there. Opcodes that only other unpicklers know are followed just far enough to name
what they would import.
"""

import io
import pickletools
from typing import Any

from goodnet.models.scan.base import MIB, Broken, Finding
from goodnet.models.scan.pickle_machine import Machine
from goodnet.models.scan.values import Instance, Vocabulary

PICKLE_LIMIT = 64 * MIB
"""Longest stretch of pickles that is scanned, in bytes; tensors lie outside."""
OPCODE_LIMIT = 2_000_000
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class PickleScan:
    """One pickle, followed to its STOP.

    Attributes:
        root: the inert value that the pickle builds; meaningless if there are findings.
        end: the offset after STOP, or None if the pickle breaks off.
        findings: what the pickle would execute, then what cannot be read; each once, where it first occurs.
    """

    def __init__(self, data: bytes, start: int, vocabulary: Vocabulary):
        self.root: object = Instance()
        self.end: int | None = None
        self._machine = Machine(data, vocabulary)
        self._stack = self._machine.stack
        self._run(data, start)
        self.findings: list[Finding] = self._machine.findings

    def _run(self, data: bytes, start: int) -> None:
        machine, stream = self._machine, io.BytesIO(data)
        stream.seek(start)
        machine.position = start
        try:
            for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
                machine.position = position or 0
                if count > OPCODE_LIMIT:
                    raise Broken(f"more than {OPCODE_LIMIT:,} pickle operations")
                try:
                    self._step(opcode, argument, stream.tell())
                except Broken as error:  # go on: what comes later may still execute in another unpickler
                    machine.problem(str(error))
                    machine.stack.push(Instance())
            self.end = stream.tell()
        except Broken as error:
            machine.problem(str(error))
        # DeprecationWarning: odd escapes in text opcodes, where warnings are errors
        except (ValueError, OverflowError, DeprecationWarning) as error:
            machine.problem(f"the pickle breaks off: {str(error)[:100]}")

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any, end: int) -> None:
        """Do what one operation that torch knows would do, on inert values."""
        stack = self._stack
        match opcode.name:
            case "BINGET" | "LONG_BINGET":
                stack.recall(argument)
            case "BINPUT" | "LONG_BINPUT":
                stack.memorize(argument)
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.push(argument)
            case "SHORT_BINSTRING":
                stack.push(_utf8(argument))
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE" as name:
                stack.push(_CONSTANTS[name])
            case "EMPTY_LIST":
                stack.push([])
            case "EMPTY_DICT":
                stack.push({})
            case "MARK":
                stack.mark()
            case "TUPLE":
                items = stack.pop_to_mark()
                stack.push(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.push_tuple(int(name[-1]))
            case "APPEND":
                stack.append([stack.pop()])
            case "APPENDS":
                stack.append(stack.pop_to_mark())
            case "SETITEM":
                stack.set_items([stack.pop(), stack.pop()][::-1])
            case "SETITEMS":
                stack.set_items(stack.pop_to_mark())
            case "GLOBAL" | "REDUCE" | "BUILD" | "NEWOBJ" | "BINPERSID" | "PROTO" | "STOP":
                self._act(opcode, argument, end)
            case name:
                self._machine.problem(f"pickle operation {name}, which torch.load(weights_only=True) does not know")
                self._foreign_step(opcode, argument, end)

    def _act(self, opcode: pickletools.OpcodeInfo, argument: Any, end: int) -> None:
        match opcode.name:
            case "GLOBAL":
                self._machine.import_text(end)
            case "REDUCE":
                self._machine.call()
            case "BUILD":
                self._machine.set_attributes()
            case "NEWOBJ":
                self._machine.new_object(argument_count=1)
            case "BINPERSID":
                self._machine.persistent()
            case "PROTO" if argument != 2:
                self._machine.problem(f"pickle protocol {argument}; torch.save writes protocol 2 unless told otherwise")
            case "STOP":
                self.root = self._machine.finish()

    def _foreign_step(self, opcode: pickletools.OpcodeInfo, argument: Any, end: int) -> None:
        """An operation that only other unpicklers know; of most, only the effect on the stack's depth is followed."""
        machine, stack = self._machine, self._stack
        match opcode.name:
            case "SHORT_BINUNICODE" | "BINUNICODE8" | "UNICODE" | "STRING" | "BINSTRING":
                stack.push(argument)
            case "PUT":
                stack.memorize(argument)
            case "MEMOIZE":
                stack.memorize()
            case "GET":
                stack.recall(argument)
            case "DUP":
                stack.push(stack.top())
            case "STACK_GLOBAL":
                machine.import_stack()
            case "EXT1" | "EXT2" | "EXT4":
                would = "would import a name from Python's registry of extension codes"
                machine.execute(f"extension code {argument}", would)
                stack.push(Instance())
            case "INST":
                stack.pop_to_mark()
                machine.import_text(end)
            case "OBJ":
                for cls in stack.pop_to_mark()[:1]:
                    stack.push(cls)
                machine.new_object(argument_count=0)
            case "NEWOBJ_EX":
                machine.new_object(argument_count=2)
            case _:
                stack.follow_depth(opcode)


def _utf8(text: str) -> str:
    """Python 2 text: pickletools gives the bytes as Latin-1, torch reads them as UTF-8."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise Broken("Python 2 text that is not UTF-8") from None
