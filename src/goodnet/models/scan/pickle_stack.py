"""The stack of an unpickler, with its marks and its memo."""

import pickletools
from collections import OrderedDict
from typing import Any

from goodnet.models.scan.base import Broken
from goodnet.models.scan.values import SCALARS, Instance


class Stack:
    """Inert values on a stack; every method raises Broken where an unpickler would fail."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memory: dict[int, Any] = {}

    def push(self, value: object) -> None:
        self._values.append(value)

    def pop(self) -> Any:
        if not self._values:
            raise Broken("the pickle takes more from its stack than it put there")
        return self._values.pop()

    def pop_last(self) -> Any:
        value = self.pop()
        if self._values or self._outer:
            raise Broken("the pickle ends with values left on its stack")
        return value

    def top(self) -> Any:
        if not self._values:
            raise Broken("the pickle uses an empty stack")
        return self._values[-1]

    def mark(self) -> None:
        self._outer.append(self._values)
        self._values = []

    def pop_to_mark(self) -> list[Any]:
        if not self._outer:
            raise Broken("the pickle takes more from its stack than it put there")
        items, self._values = self._values, self._outer.pop()
        return items

    def memorize(self, index: int | None = None) -> None:
        """Keep the top under ``index``, or under the next one."""
        self._memory[len(self._memory) if index is None else index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self._memory:
            raise Broken("the pickle recalls what it never memorized")
        self.push(self._memory[index])

    def push_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        if type(self.top()) is not list:
            raise Broken("the pickle appends to something that is not a list")
        self.top().extend(items)

    def set_items(self, items: list[Any]) -> None:
        """``items`` are keys and values in turn."""
        if type(self.top()) not in (dict, OrderedDict) or len(items) % 2:
            raise Broken("the pickle sets items of something that is not a dictionary")
        if not all(type(key) in SCALARS for key in items[::2]):
            raise Broken("a dictionary key that is neither text nor a number")
        self.top().update(zip(items[::2], items[1::2], strict=True))

    def follow_depth(self, opcode: pickletools.OpcodeInfo) -> None:
        """Take and put as many values as the operation would, whatever they are."""
        before = list(opcode.stack_before)
        if pickletools.markobject in before:
            self.pop_to_mark()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self.pop()
        for _ in opcode.stack_after:
            self.push(Instance())
