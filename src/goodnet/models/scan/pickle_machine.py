"""What the operations of a pickle that import, call and build would do; nothing is imported, called or built."""

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # what Python 2 called things
from collections import OrderedDict

from goodnet.models.scan.base import Broken, Finding
from goodnet.models.scan.names import danger
from goodnet.models.scan.pickle_stack import Stack
from goodnet.models.scan.values import Global, Instance, Vocabulary, check_nesting

FINDING_LIMIT = 100
_NAME_LIMIT = 200
_ARGUMENT_LIMIT = 8


class Machine:
    """An unpickler that only writes down what it would do.

    Attributes:
        stack: of inert values.
        position: the offset of the operation at work, for findings; the caller moves it.
    """

    def __init__(self, data: bytes, vocabulary: Vocabulary):
        self.stack = Stack()
        self.position = 0
        self._data, self._vocabulary = data, vocabulary
        self._executes: dict[str, tuple[int, str]] = {}
        self._problems: dict[str, int] = {}
        self._models: set[str] = set()

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

    def problem(self, message: str) -> None:
        if len(self._problems) < FINDING_LIMIT:
            self._problems.setdefault(message, self.position)

    def execute(self, name: str, message: str = "") -> None:
        if len(self._executes) < FINDING_LIMIT and name not in self._executes:
            self._executes[name] = self.position, message or danger(name)

    def import_text(self, end: int) -> None:
        """Import the two lines that follow the operation, which ends at ``end``."""
        # pickletools unescapes backslashes here and unpicklers do not: read the bytes themselves
        module, name = self._data[self.position + 1 : end].split(b"\n")[:2]
        self._import(module.decode(errors="backslashreplace"), name.decode(errors="backslashreplace"))

    def import_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is str and type(module) is str:
            self._import(module, name)
        else:
            self.execute("a computed name", "would import a name that the file computes while it loads")
            self.stack.push(Instance())

    def _import(self, module: str, name: str) -> None:
        module, name = module[:_NAME_LIMIT], name[:_NAME_LIMIT]
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full, vocabulary = f"{module}.{name}", self._vocabulary
        if full in vocabulary.unread:
            self.problem(f"{full}: goodnet reads dense tensors in lists and dictionaries only")
        elif full not in vocabulary.calls and full not in vocabulary.values:
            self.execute(full)
        self.stack.push(Global(full))

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global):
            self.execute("a computed function", "would call something that the file computes while it loads")
            raise Broken("calls a computed function")
        if function.name == "copyreg._reconstructor" and type(arguments) is tuple and arguments:
            self.stack.push(_instance_of(arguments[0]))
        elif function.name not in self._vocabulary.calls:
            self.problem(f"calls {function.name}")
            self.stack.push(Instance(function.name))
        elif type(arguments) is not tuple or len(arguments) > _ARGUMENT_LIMIT:
            raise Broken(f"{function.name} is called with something that is not a short tuple")
        else:
            self.stack.push(self._vocabulary.calls[function.name](arguments))

    def new_object(self, argument_count: int) -> None:
        for _ in range(argument_count):
            self.stack.pop()
        cls = self.stack.pop()
        if not isinstance(cls, Global):
            self.execute("a computed class", "would build an object of a class that the file computes while it loads")
        self.problem("builds an object of a class; goodnet reads dense tensors in lists and dictionaries only")
        self.stack.push(_instance_of(cls))

    def set_attributes(self) -> None:
        state, target = self.stack.pop(), self.stack.top()
        if type(target) is OrderedDict and type(state) is dict and state.keys() <= {"_metadata"}:
            target.__dict__.update(state)  # what torch.nn.Module.state_dict() leaves on its result
            return
        parts = state[:2] if type(state) is tuple else (state,)
        if isinstance(target, Instance) and any(isinstance(part, dict) and "_modules" in part for part in parts):
            self._models.add(target.of)
        self.problem("sets the attributes of an object; goodnet reads dense tensors in lists and dictionaries only")

    def persistent(self) -> None:
        """Put what the persistent id on the stack stands for, such as a storage."""
        identity = self.stack.pop()
        if type(identity) is tuple and len(identity) > 1 and identity[0] == "module":
            self.problem("holds the source code of a model's classes")
            self.stack.push(identity[1])
        elif self._vocabulary.persistent is None:
            raise Broken("a persistent id where none belongs")
        else:
            self.stack.push(self._vocabulary.persistent(identity))

    def finish(self) -> object:
        """The value that the pickle builds."""
        root = self.stack.pop_last()
        if not self._executes:
            check_nesting(root)
        return root


def _instance_of(cls: object) -> Instance:
    return Instance(cls.name if isinstance(cls, Global) else "")
