"""How a command ends: exit codes, messages on stderr, never a traceback for what goodnet raises on purpose."""

from collections.abc import Iterable
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from goodnet.errors import GoodnetError, UnsafeFile

NOTHING_FOUND = 0
FOUND = 1  # a backdoor, or a file that would execute something
NO_ANSWER = 2  # a file that cannot be read, or wrong usage
INCONCLUSIVE = 3
INTERRUPTED = 130  # as shells have it for Ctrl-C
_WORST_FIRST = (FOUND, NO_ANSWER, INCONCLUSIVE, NOTHING_FOUND)


def worst(codes: Iterable[int]) -> int:
    """The exit code of several files: 1 before 2 before 3 before 0."""
    return min(codes, key=_WORST_FIRST.index, default=NOTHING_FOUND)


def code_of(error: GoodnetError) -> int:
    """The exit code that says this."""
    return FOUND if isinstance(error, UnsafeFile) else NO_ANSWER


class EndsInWords(TyperGroup):
    """Commands that return their exit code; errors and Ctrl-C become a message and a code."""

    def invoke(self, ctx: Any) -> NoReturn:  # typer keeps the type of a context to itself
        try:
            code = super().invoke(ctx)
        except GoodnetError as error:
            complain(str(error))
            code = code_of(error)
        except BrokenPipeError:
            raise
        except OSError as error:
            complain(str(error))
            code = NO_ANSWER
        except KeyboardInterrupt:
            complain("interrupted; nothing more was written")
            code = INTERRUPTED
        raise typer.Exit(code)


def complain(message: str) -> None:
    """A message to the person, on stderr."""
    typer.echo(f"goodnet: {shown(message)}", err=True)


def shown(text: str) -> str:
    """``text`` without characters that could command a terminal: names in files come from strangers."""
    return "".join(
        character if character.isprintable() or character == "\n" else _code(character) for character in text
    )


def _code(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
